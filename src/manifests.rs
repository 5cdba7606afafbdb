//! Kubernetes manifests from files: read, split into objects, and able to say on which line a
//! field stands.
//!
//! A directory is read as `kubectl apply -f DIR` reads it: its `.yaml`, `.yml` and `.json` files in
//! name order, without descending. All files are read before anything is reported, so that one run
//! names every problem.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use serde_saphyr::Spanned;

/// Largest file that is read: over any list of manifests that the API would take.
const MAX_FILE: u64 = 16 << 20;

/// One object of a manifest file.
#[derive(Clone, Debug)]
pub(crate) struct Manifest {
    /// The file.
    pub(crate) file: PathBuf,
    /// The object as written.
    pub(crate) object: Value,
    /// Line of each field, by its path (`spec.ports[0].port`; the object itself is the empty path).
    lines: BTreeMap<String, u64>,
}

impl Manifest {
    /// A text field, by JSON pointer.
    pub(crate) fn text(&self, pointer: &str) -> Option<&str> {
        self.object.pointer(pointer).and_then(Value::as_str)
    }

    /// The whole object, named.
    pub(crate) fn named(&self) -> Named {
        let text = |pointer| self.text(pointer).unwrap_or("?").to_owned();
        Named {
            kind: text("/kind"),
            namespace: self.text("/metadata/namespace").map(str::to_owned),
            name: text("/metadata/name"),
        }
    }

    /// The line on which a field stands, or the nearest enclosing field that is there.
    pub(crate) fn line(&self, field: &str) -> u64 {
        // An item of a map is written `annotations[name]` in messages.
        let dotted = dotted(field);
        let mut path = dotted.as_str();
        loop {
            if let Some(line) = self.lines.get(path) {
                return *line;
            }
            match path.rfind(['.', '[']) {
                Some(end) => path = &path[..end],
                None => return self.lines.get("").copied().unwrap_or(1),
            }
        }
    }

    /// A problem with this object, at the place of `field`.
    pub(crate) fn problem(
        &self,
        fault: Fault,
        field: &str,
        message: impl fmt::Display,
    ) -> ManifestError {
        ManifestError {
            file: self.file.clone(),
            line: Some(self.line(field)),
            object: Some(Box::new(self.named())),
            field: field.to_owned(),
            fault,
            message: message.to_string(),
        }
    }
}

/// A field path with `[name]` written as `.name`; indexes stay.
fn dotted(field: &str) -> String {
    let mut out = String::with_capacity(field.len());
    let mut rest = field;
    while let Some((before, after)) = rest.split_once('[') {
        out.push_str(before);
        let (inner, behind) = after.split_once(']').unwrap_or((after, ""));
        if inner.bytes().all(|b| b.is_ascii_digit()) {
            out.push_str(&format!("[{inner}]"));
        } else {
            out.push('.');
            out.push_str(inner);
        }
        rest = behind;
    }
    out.push_str(rest);
    out
}

/// An object as a manifest names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    /// Kind.
    pub(crate) kind: String,
    /// Namespace, if the manifest has one.
    pub(crate) namespace: Option<String>,
    /// Name.
    pub(crate) name: String,
}

/// A manifest that cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) struct ManifestError {
    /// The file.
    pub(crate) file: PathBuf,
    /// The line, counted from 1.
    pub(crate) line: Option<u64>,
    /// The object, if it got that far.
    pub(crate) object: Option<Box<Named>>,
    /// The field, as a path from the object's root; empty for the object as a whole.
    pub(crate) field: String,
    /// What kind of problem it is.
    pub(crate) fault: Fault,
    /// What is wrong.
    pub(crate) message: String,
}

/// The kinds of [`ManifestError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The file cannot be read.
    Unreadable,
    /// It is not YAML or JSON.
    Syntax,
    /// A document of it is no Kubernetes object.
    NotAnObject,
    /// The API has its group, and no such kind or version in it.
    UnknownKind,
    /// The API has nothing of its group: a custom resource.
    ForeignKind,
    /// The kind has no such field.
    UnknownField,
    /// A field's value is not allowed.
    BadValue,
    /// The API refused it for another reason.
    Refused,
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if let Some(object) = &self.object {
            write!(f, ": {} {}", object.kind, object.name)?;
        }
        if self.fault == Fault::BadValue && !self.field.is_empty() {
            write!(f, ": {}", self.field)?;
        }
        write!(f, ": {}", self.message)
    }
}

/// Reads manifests from files and directories.
///
/// # Errors
/// Every file that cannot be read or parsed, and every object without `apiVersion`, `kind` or name.
pub(crate) fn load(paths: &[PathBuf]) -> Result<Vec<Manifest>, Vec<ManifestError>> {
    let (manifests, errors) = load_good(paths);
    if errors.is_empty() {
        Ok(manifests)
    } else {
        Err(errors)
    }
}

/// Reads manifests from files and directories: those that can be read, and what is wrong with the
/// others, as [`load`] would report it.
pub(crate) fn load_good(paths: &[PathBuf]) -> (Vec<Manifest>, Vec<ManifestError>) {
    let mut manifests = Vec::new();
    let mut errors = Vec::new();
    for path in paths {
        match files(path) {
            Ok(files) => {
                for file in files {
                    if let Err(error) = read(&file, &mut manifests, &mut errors) {
                        errors.push(error);
                    }
                }
            }
            Err(error) => errors.push(error),
        }
    }
    (manifests, errors)
}

fn files(path: &Path) -> Result<Vec<PathBuf>, ManifestError> {
    let unusable = |message| whole_file(path, Fault::Unreadable, None, message);
    let meta = std::fs::metadata(path).map_err(|error| unusable(error.to_string()))?;
    if !meta.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = std::fs::read_dir(path).map_err(|error| unusable(error.to_string()))?;
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|file| {
            let extension = file.extension().and_then(|extension| extension.to_str());
            matches!(extension, Some("yaml" | "yml" | "json")) && file.is_file()
        })
        .collect();
    files.sort();
    if files.is_empty() {
        return Err(unusable(
            "no .yaml, .yml or .json file in this directory".to_owned(),
        ));
    }
    Ok(files)
}

fn whole_file(file: &Path, fault: Fault, line: Option<u64>, message: String) -> ManifestError {
    ManifestError {
        file: file.to_owned(),
        line,
        object: None,
        field: String::new(),
        fault,
        message,
    }
}

/// Reads one file; an error of the file as a whole is returned.
fn read(
    file: &Path,
    manifests: &mut Vec<Manifest>,
    errors: &mut Vec<ManifestError>,
) -> Result<(), ManifestError> {
    let unreadable = |message| whole_file(file, Fault::Unreadable, None, message);
    let size = std::fs::metadata(file).map_err(|e| unreadable(e.to_string()))?;
    if size.len() > MAX_FILE {
        return Err(unreadable("the file is over 16 MiB".to_owned()));
    }
    let text = std::fs::read_to_string(file).map_err(|e| unreadable(e.to_string()))?;
    let documents: Vec<Node> = serde_saphyr::from_multiple(&text).map_err(|e| {
        let line = e.location().map(|location| location.line());
        let message = format!("not valid YAML: {}", first_line(&e));
        whole_file(file, Fault::Syntax, line, message)
    })?;
    for document in documents {
        for object in document.objects() {
            match object.manifest(file) {
                Ok(Some(manifest)) => manifests.push(manifest),
                Ok(None) => {}
                Err(error) => errors.push(error),
            }
        }
    }
    Ok(())
}

/// The message without the source excerpt that the parser adds on further lines.
fn first_line(error: &serde_saphyr::Error) -> String {
    let text = error.without_snippet().to_string();
    text.lines().next().unwrap_or_default().to_owned()
}

/// A YAML node with the line on which it stands.
#[derive(Debug)]
struct Node {
    line: u64,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Scalar(Value),
    Sequence(Vec<Node>),
    Mapping(Vec<(String, Node)>),
}

impl Node {
    /// The objects of a document: the items of a `List`, or the document itself.
    fn objects(self) -> Vec<Self> {
        let Content::Mapping(fields) = self.content else {
            return vec![self];
        };
        let is_list = fields.iter().any(|(key, value)| {
            key == "kind"
                && matches!(&value.content, Content::Scalar(Value::String(kind)) if kind == "List")
        });
        let line = self.line;
        if !is_list {
            return vec![Self {
                line,
                content: Content::Mapping(fields),
            }];
        }
        let items = fields.into_iter().find(|(key, _)| key == "items");
        match items.map(|(_, node)| node.content) {
            Some(Content::Sequence(items)) => items,
            Some(Content::Scalar(_) | Content::Mapping(_)) | None => Vec::new(),
        }
    }

    /// `None` for an empty document.
    fn manifest(self, file: &Path) -> Result<Option<Manifest>, ManifestError> {
        if matches!(self.content, Content::Scalar(Value::Null)) {
            return Ok(None);
        }
        let line = self.line;
        let mut lines = BTreeMap::new();
        let object = self.into_value(String::new(), &mut lines);
        let manifest = Manifest {
            file: file.to_owned(),
            object,
            lines,
        };
        let missing =
            |message: &str| whole_file(file, Fault::NotAnObject, Some(line), message.to_owned());
        if !manifest.object.is_object() {
            return Err(missing("not a Kubernetes object: expected a mapping"));
        }
        for field in ["apiVersion", "kind"] {
            let value = manifest.object.get(field).and_then(Value::as_str);
            if value.is_none_or(str::is_empty) {
                return Err(missing(&format!("{field} is not set")));
            }
        }
        let name = manifest.object.pointer("/metadata/name");
        if name.and_then(Value::as_str).is_none_or(str::is_empty) {
            let message = "metadata.name is not set";
            return Err(manifest.problem(Fault::NotAnObject, "metadata", message));
        }
        Ok(Some(manifest))
    }

    fn into_value(self, path: String, lines: &mut BTreeMap<String, u64>) -> Value {
        let value = match self.content {
            Content::Scalar(value) => value,
            Content::Sequence(items) => items
                .into_iter()
                .enumerate()
                .map(|(index, item)| item.into_value(format!("{path}[{index}]"), lines))
                .collect(),
            Content::Mapping(fields) => {
                let mut map = Map::new();
                for (key, node) in fields {
                    let child = if path.is_empty() {
                        key.clone()
                    } else {
                        format!("{path}.{key}")
                    };
                    map.insert(key, node.into_value(child, lines));
                }
                Value::Object(map)
            }
        };
        lines.insert(path, self.line);
        value
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Content>::deserialize(deserializer)?;
        Ok(Self {
            line: spanned.referenced.line(),
            content: spanned.value,
        })
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ContentVisitor)
    }
}

struct ContentVisitor;

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = Content;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a scalar, a sequence or a mapping")
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Content, E> {
        Ok(Content::Scalar(value.into()))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Content, E> {
        Ok(Content::Scalar(value.into()))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Content, E> {
        Ok(Content::Scalar(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Content, E> {
        Ok(Content::Scalar(value.into()))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Content, E> {
        Ok(Content::Scalar(value.into()))
    }

    fn visit_unit<E: de::Error>(self) -> Result<Content, E> {
        Ok(Content::Scalar(Value::Null))
    }

    fn visit_none<E: de::Error>(self) -> Result<Content, E> {
        self.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Content, D::Error> {
        Content::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Content, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = items.next_element()? {
            nodes.push(node);
        }
        Ok(Content::Sequence(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Content, A::Error> {
        let mut nodes = Vec::new();
        while let Some((key, node)) = fields.next_entry::<String, Node>()? {
            nodes.push((key, node));
        }
        Ok(Content::Mapping(nodes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("app.yaml");
        std::fs::write(&file, text).unwrap();
        (dir, file)
    }

    #[test]
    fn objects_know_the_lines_of_their_fields() {
        let (_dir, file) = write(
            "apiVersion: v1\nkind: Service\nmetadata:\n  name: a\nspec:\n  ports:\n  - port: 80\n    name: http\n---\n---\napiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: ConfigMap\n  metadata: {name: b}\n",
        );
        let manifests = load(&[file]).unwrap();
        assert_eq!(manifests.len(), 2);
        assert_eq!(manifests[0].named().name, "a");
        for (field, line) in [
            ("spec.ports[0].name", 8),
            ("spec.ports[0].port", 7),
            ("spec.ports[0].targetPort", 7),
            ("spec.type", 6),
            ("nothing.here", 1),
        ] {
            assert_eq!(manifests[0].line(field), line, "{field}");
        }
        assert_eq!(manifests[1].named().kind, "ConfigMap");
        assert_eq!(manifests[1].line("metadata.name"), 16);
    }

    #[test]
    fn every_unusable_file_is_named_with_its_line() {
        let (dir, file) = write("apiVersion: v1\nkind: [\n");
        std::fs::write(dir.path().join("b.yaml"), "apiVersion: v1\nkind: Pod\n").unwrap();
        std::fs::write(dir.path().join("c.yaml"), "- 1\n").unwrap();
        let errors = load(&[dir.path().to_owned(), dir.path().join("none")]).unwrap_err();
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(texts.len(), 4, "{texts:?}");
        assert!(
            texts[0].starts_with(&format!("{}:", file.display())),
            "{}",
            texts[0]
        );
        assert!(texts[0].contains("not valid YAML"), "{}", texts[0]);
        assert!(
            texts[1].contains("b.yaml:1: Pod ?: metadata.name is not set"),
            "{}",
            texts[1]
        );
        assert!(
            texts[2].contains("c.yaml:1: not a Kubernetes object"),
            "{}",
            texts[2]
        );
        assert!(texts[3].contains("No such file"), "{}", texts[3]);
    }
}
