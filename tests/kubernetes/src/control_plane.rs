//! The control plane as a whole.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::api::{Api, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::kubeconfig;
use crate::pki::Pki;
use crate::port::free_port;
use crate::process::Process;
use crate::programs::{Program, Unavailable, path};

/// How long a part may take until it is ready: generous, because these machines are shared.
const DEADLINE: Duration = Duration::from_secs(90);

/// How often is asked whether it is.
const LOOK: Duration = Duration::from_millis(50);

/// Which parts run, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// kube-controller-manager and kube-scheduler: Deployments become pods, selectors become
    /// EndpointSlices. Without them only what a test writes is there.
    pub controllers: bool,
    /// The Service network, IPv4 and optionally IPv6 behind a comma.
    pub service_cidr: String,
    /// Where pods of a node would reach the API server, for the endpoints of Service
    /// `default/kubernetes`.
    pub advertise: Ipv4Addr,
    /// More flags for the API server.
    pub api_server_flags: Vec<String>,
    /// More variables in the API server's environment.
    pub api_server_environment: Vec<(String, String)>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            controllers: true,
            service_cidr: "10.96.0.0/16".to_owned(),
            advertise: Ipv4Addr::new(10, 244, 0, 1),
            api_server_flags: Vec::new(),
            api_server_environment: Vec::new(),
        }
    }
}

/// A running control plane. Dropping it ends it.
pub struct ControlPlane {
    options: Options,
    // Fields are dropped in order: those that talk to another before that other.
    controllers: Vec<Process>,
    api_server: Option<Process>,
    etcd: Process,
    etcd_addr: SocketAddr,
    api_addr: SocketAddr,
    pki: Pki,
    client: Client,
    kubeconfig: PathBuf,
    directory: TempDir,
}

impl ControlPlane {
    /// Starts it and waits until it is ready to take objects.
    ///
    /// # Errors
    /// A part could not be started or did not become ready; the error has the end of its log. The
    /// inner error says why a machine has no control plane at all.
    pub async fn start(options: Options) -> anyhow::Result<Result<Self, Unavailable>> {
        if let Err(unavailable) = path(Program::Etcd) {
            return Ok(Err(unavailable));
        }
        let directory = tempfile::tempdir().context("cannot make a directory")?;
        let pki = Pki::create(directory.path())?;
        let service = first_service_ip(&options.service_cidr)?;
        let advertise = options.advertise.to_string();
        pki.server(&[
            "localhost",
            "127.0.0.1",
            "kubernetes.default.svc",
            &service,
            &advertise,
        ])?;
        let free = || SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let [etcd_addr, peer, api_addr] = std::array::from_fn(|_| free());
        let server = format!("https://{api_addr}");
        let kubeconfig = directory.path().join("admin.kubeconfig");
        let admin = pki.client("admin", Some("system:masters"))?;
        let user = kubeconfig::certificate_user(&admin);
        pki.write_pair(
            "kubelet-client",
            &pki.client("kube-apiserver", Some("system:masters"))?,
        )?;
        write(
            &kubeconfig,
            &kubeconfig::document(&server, &pki.ca_pem, &user),
        )?;
        let mut plane = Self {
            etcd: start_etcd(directory.path(), etcd_addr, peer)?,
            client: client(&kubeconfig).await?,
            options,
            controllers: Vec::new(),
            api_server: None,
            etcd_addr,
            api_addr,
            pki,
            kubeconfig,
            directory,
        };
        plane.start_api_server().await?;
        if plane.options.controllers {
            plane.start_controllers()?;
            plane.until_accounts().await?;
        }
        Ok(Ok(plane))
    }

    /// The API server's address.
    pub fn api_addr(&self) -> SocketAddr {
        self.api_addr
    }

    /// etcd's address, for clients without TLS.
    pub fn etcd_addr(&self) -> SocketAddr {
        self.etcd_addr
    }

    /// A client that may do everything.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// The kubeconfig of a user who may do everything.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// A directory that goes with the control plane.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The authority that signed the API server's certificate, in PEM.
    pub fn ca_pem(&self) -> &str {
        &self.pki.ca_pem
    }

    /// The API server's process, while it runs.
    pub fn api_server(&self) -> Option<&Process> {
        self.api_server.as_ref()
    }

    /// The `user` entry of a kubeconfig for a user of its own, who may do what RBAC says.
    ///
    /// # Errors
    /// The certificate cannot be made.
    pub fn user(&self, user: &str, group: Option<&str>) -> anyhow::Result<Value> {
        Ok(kubeconfig::certificate_user(&self.pki.client(user, group)?))
    }

    /// Writes a kubeconfig for a user of its own, who may do what RBAC says; returns its path.
    ///
    /// # Errors
    /// The certificate cannot be made or the file not be written.
    pub fn user_kubeconfig(&self, user: &str, group: Option<&str>) -> anyhow::Result<PathBuf> {
        self.write_kubeconfig(user, &self.user(user, group)?)
    }

    /// Writes a kubeconfig for a ServiceAccount, with a token for an hour; returns its path.
    ///
    /// # Errors
    /// The API server does not give a token, or the file cannot be written.
    pub async fn account_kubeconfig(&self, namespace: &str, name: &str) -> anyhow::Result<PathBuf> {
        let token = self.account_token(namespace, name, 3600).await?;
        self.write_kubeconfig(&format!("{namespace}-{name}"), &json!({"token": token}))
    }

    /// A token of a ServiceAccount; 600 seconds is the shortest life that the API server gives.
    ///
    /// # Errors
    /// The API server does not give one.
    pub async fn account_token(
        &self,
        namespace: &str,
        name: &str,
        seconds: i64,
    ) -> anyhow::Result<String> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client(), namespace);
        let request = TokenRequest {
            spec: TokenRequestSpec {
                expiration_seconds: Some(seconds),
                ..TokenRequestSpec::default()
            },
            ..TokenRequest::default()
        };
        let params = PostParams::default();
        let made = accounts.create_token_request(name, &params, &request).await;
        let made = made.with_context(|| format!("no token for {namespace}/{name}"))?;
        Ok(made.status.context("a token")?.token)
    }

    /// Writes a kubeconfig with this `user` entry (`token`, `exec`, …); returns its path.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_kubeconfig(&self, name: &str, user: &Value) -> anyhow::Result<PathBuf> {
        let server = format!("https://{}", self.api_addr);
        self.write_kubeconfig_for(&server, name, user)
    }

    /// As [`Self::write_kubeconfig`], for another way to the API server, such as a proxy.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_kubeconfig_for(
        &self,
        server: &str,
        name: &str,
        user: &Value,
    ) -> anyhow::Result<PathBuf> {
        let path = self
            .directory
            .path()
            .join(format!("{}.kubeconfig", name.replace(':', "-")));
        write(&path, &kubeconfig::document(server, &self.pki.ca_pem, user))?;
        Ok(path)
    }

    /// Ends the controllers: what they have written stays as it is.
    pub fn stop_controllers(&mut self) {
        self.controllers.clear();
    }

    /// Ends the API server with SIGKILL.
    pub fn kill_api_server(&mut self) {
        if let Some(server) = self.api_server.take() {
            server.kill();
        }
    }

    /// Starts the API server, on the address that it had before, and waits until it is ready.
    ///
    /// # Errors
    /// It could not be started or did not become ready.
    pub async fn start_api_server(&mut self) -> anyhow::Result<()> {
        let flags = self.api_server_flags();
        let log = self.directory.path().join("kube-apiserver.log");
        let path = program(Program::KubeApiserver)?;
        let environment = &self.options.api_server_environment;
        let mut server = Process::start_with(&path, flags, environment, &log)?;
        let until = Instant::now() + DEADLINE;
        while !self.is_ready().await {
            server.check()?;
            self.etcd.check()?;
            if Instant::now() >= until {
                bail!("the API server is not ready\n{}", server.log_tail());
            }
            tokio::time::sleep(LOOK).await;
        }
        self.api_server = Some(server);
        Ok(())
    }

    async fn is_ready(&self) -> bool {
        let Ok(request) = http_get("/readyz") else {
            return false;
        };
        let namespaces: Api<Namespace> = Api::all(self.client());
        self.client
            .request_text(request)
            .await
            .is_ok_and(|text| text == "ok")
            && namespaces
                .get_opt("default")
                .await
                .is_ok_and(|found| found.is_some())
    }

    fn api_server_flags(&self) -> Vec<String> {
        let pki = |name: &str| self.pki.file(name);
        let mut flags = vec![
            format!("--etcd-servers=http://{}", self.etcd_addr),
            format!("--bind-address={}", self.api_addr.ip()),
            format!("--secure-port={}", self.api_addr.port()),
            format!("--advertise-address={}", self.options.advertise),
            format!("--service-cluster-ip-range={}", self.options.service_cidr),
            format!("--tls-cert-file={}", pki("apiserver.crt")),
            format!("--tls-private-key-file={}", pki("apiserver.key")),
            format!("--client-ca-file={}", pki("ca.crt")),
            format!("--service-account-key-file={}", pki("sa.pub")),
            format!("--service-account-signing-key-file={}", pki("sa.key")),
            format!("--kubelet-client-certificate={}", pki("kubelet-client.crt")),
            format!("--kubelet-client-key={}", pki("kubelet-client.key")),
            // Exec reaches the node as the WebSocket that it is, not translated to SPDY.
            "--feature-gates=TranslateStreamCloseWebsocketRequests=false".to_owned(),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            "--authorization-mode=Node,RBAC".to_owned(),
            "--allow-privileged=true".to_owned(),
            // Deletions of whole namespaces and the like wait for nobody.
            "--shutdown-delay-duration=0s".to_owned(),
        ];
        flags.extend(self.options.api_server_flags.iter().cloned());
        flags
    }

    fn start_controllers(&mut self) -> anyhow::Result<()> {
        let common = [
            format!("--kubeconfig={}", self.kubeconfig.display()),
            "--leader-elect=false".to_owned(),
            "--kube-api-qps=500".to_owned(),
            "--kube-api-burst=1000".to_owned(),
            "--secure-port=0".to_owned(),
        ];
        let signing = [
            format!(
                "--service-account-private-key-file={}",
                self.pki.file("sa.key")
            ),
            format!("--root-ca-file={}", self.pki.file("ca.crt")),
        ];
        for (program_name, more) in [
            (Program::KubeControllerManager, &signing[..]),
            (Program::KubeScheduler, &[]),
        ] {
            let log = self
                .directory
                .path()
                .join(format!("{}.log", program_name.name()));
            let flags = common.iter().chain(more).cloned();
            let process = Process::start(&program(program_name)?, flags, &log)?;
            self.controllers.push(process);
        }
        Ok(())
    }

    /// Pods can be made once the controllers have given the default namespace its ServiceAccount.
    async fn until_accounts(&mut self) -> anyhow::Result<()> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client(), "default");
        let until = Instant::now() + DEADLINE;
        while accounts.get_opt("default").await?.is_none() {
            for process in &mut self.controllers {
                process.check()?;
            }
            if Instant::now() >= until {
                bail!(
                    "the controllers do nothing\n{}",
                    self.controllers[0].log_tail()
                );
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }
}

fn program(program: Program) -> anyhow::Result<PathBuf> {
    path(program).map_err(|Unavailable(reason)| anyhow::anyhow!(reason))
}

fn start_etcd(directory: &Path, client: SocketAddr, peer: SocketAddr) -> anyhow::Result<Process> {
    let flags = [
        format!("--data-dir={}", directory.join("etcd").display()),
        format!("--listen-client-urls=http://{client}"),
        format!("--advertise-client-urls=http://{client}"),
        format!("--listen-peer-urls=http://{peer}"),
        format!("--initial-advertise-peer-urls=http://{peer}"),
        format!("--initial-cluster=default=http://{peer}"),
        // What a test writes need not outlive the machine.
        "--unsafe-no-fsync".to_owned(),
        "--quota-backend-bytes=8589934592".to_owned(),
        "--log-level=warn".to_owned(),
    ];
    Process::start(&program(Program::Etcd)?, flags, &directory.join("etcd.log"))
}

/// A client for what a kubeconfig says.
async fn client(kubeconfig: &Path) -> anyhow::Result<Client> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

fn http_get(path: &str) -> anyhow::Result<http::Request<Vec<u8>>> {
    Ok(http::Request::get(path).body(Vec::new())?)
}

fn write(path: &Path, kubeconfig: &Value) -> anyhow::Result<()> {
    fs::write(path, kubeconfig.to_string())
        .with_context(|| format!("cannot write {}", path.display()))
}

/// The first address of the Service network is that of Service `default/kubernetes`.
fn first_service_ip(cidr: &str) -> anyhow::Result<String> {
    let first = cidr.split([',', '/']).next().unwrap_or_default();
    let network: Ipv4Addr = first
        .parse()
        .context("the Service network begins with IPv4")?;
    Ok(Ipv4Addr::from(u32::from(network) + 1).to_string())
}
