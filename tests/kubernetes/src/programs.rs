//! The programs of the control plane, built from their Go modules into the target directory.

use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::Context as _;
use sealane_test_go::Workplace;

/// The version that the API server says it is; go.mod has the same.
const KUBERNETES_VERSION: &str = "v1.34.4";

/// A program of the Go module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// The store.
    Etcd,
    /// The API server.
    KubeApiserver,
    /// The controllers.
    KubeControllerManager,
    /// The scheduler.
    KubeScheduler,
    /// The Service proxy that ours is measured against.
    KubeProxy,
}

impl Program {
    /// Name of the program's file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::KubeApiserver => "kube-apiserver",
            Self::KubeControllerManager => "kube-controller-manager",
            Self::KubeScheduler => "kube-scheduler",
            Self::KubeProxy => "kube-proxy",
        }
    }
}

/// Why there is no real control plane on this machine.
#[derive(Debug, Clone)]
pub struct Unavailable(pub String);

/// Path of a program, which is built if it is not there yet: about five minutes for the first one,
/// which builds all of them.
///
/// # Errors
/// [`Unavailable`] if the program is not there and Go is not either.
///
/// # Panics
/// If the build fails.
pub fn path(program: Program) -> Result<PathBuf, Unavailable> {
    static BUILT: OnceLock<Result<PathBuf, Unavailable>> = OnceLock::new();
    let directory = BUILT.get_or_init(|| match build() {
        Ok(built) => built,
        Err(error) => panic!("cannot build the control plane: {error:#}"),
    });
    Ok(directory
        .as_ref()
        .map_err(Clone::clone)?
        .join(program.name()))
}

/// Builds unless it was built from the same sources before; other test processes wait meanwhile.
fn build() -> anyhow::Result<Result<PathBuf, Unavailable>> {
    let module = Path::new(env!("CARGO_MANIFEST_DIR"));
    let place = Workplace::enter("kubernetes")?;
    let directory = place.directory();
    let stamp = directory.join("built-from");
    let sources = fingerprint(module)?;
    if fs::read_to_string(&stamp).is_ok_and(|built| built == sources) {
        return Ok(Ok(directory.to_owned()));
    }
    eprintln!("building kube-apiserver, etcd and others (about five minutes, once)");
    let mut go = Command::new("go");
    go.args(["build", "-trimpath", "-ldflags"])
        .arg(format!(
            "-s -w -X k8s.io/component-base/version.gitVersion={KUBERNETES_VERSION}"
        ))
        .arg("-o")
        .arg(directory)
        .arg("./cmd/...")
        .current_dir(module);
    if !sealane_test_go::run(&mut go)? {
        return Ok(Err(Unavailable(
            "Go is not installed, which builds the real control plane".to_owned(),
        )));
    }
    fs::write(&stamp, sources).context("cannot note what was built")?;
    Ok(Ok(directory.to_owned()))
}

/// Changes when the module's files do.
fn fingerprint(module: &Path) -> anyhow::Result<String> {
    let mut hasher = DefaultHasher::new();
    KUBERNETES_VERSION.hash(&mut hasher);
    let mut files = vec![module.join("go.mod"), module.join("go.sum")];
    for entry in fs::read_dir(module.join("cmd")).context("cannot list the programs")? {
        files.push(
            entry
                .context("cannot list the programs")?
                .path()
                .join("main.go"),
        );
    }
    files.sort();
    for file in files {
        fs::read(&file)
            .with_context(|| format!("cannot read {}", file.display()))?
            .hash(&mut hasher);
    }
    Ok(format!("{:016x}\n", hasher.finish()))
}
