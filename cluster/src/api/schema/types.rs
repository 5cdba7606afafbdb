//! The types of the Kubernetes API: descriptors joined with the marks of their JSON form.

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

use prost_reflect::{DescriptorPool, FieldDescriptor, Kind, MessageDescriptor};

static DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/kubernetes.binpb"));
static MARKS: &str = include_str!("../../../proto/json-fields.txt");
static REGISTRY: LazyLock<Registry> = LazyLock::new(Registry::build);

const META: &str = "k8s.io.apimachinery.pkg.apis.meta.v1";

/// All types, built on first use.
pub(in crate::api) struct Registry {
    pool: DescriptorPool,
    types: HashMap<String, Type>,
}

/// A message as JSON sees it.
pub(in crate::api) struct Type {
    /// Name without its package, such as `PodSpec`.
    pub(in crate::api) name: String,
    /// Name with the last part of its package, such as `v1.PodSpec`.
    pub(in crate::api) qualified: String,
    /// Whether it has `apiVersion` and `kind`.
    pub(in crate::api) type_meta: bool,
    /// Fields by their name in JSON, inlined ones included.
    pub(in crate::api) fields: BTreeMap<String, Field>,
    /// Where the fields of the wire format go.
    pub(in crate::api) slots: HashMap<u32, Slot>,
}

/// Where a field of the wire format goes in JSON.
pub(in crate::api) enum Slot {
    /// Into the field of this name.
    Field(String),
    /// Its fields, those of the message named, go into the message around it.
    Inline(String),
}

/// A field in JSON.
#[derive(Clone)]
pub(in crate::api) struct Field {
    /// What it holds.
    pub(in crate::api) shape: Shape,
    /// A scalar that tells absent from zero.
    pub(in crate::api) optional: bool,
    /// A message that is never absent.
    pub(in crate::api) by_value: bool,
    /// Written even if there is nothing.
    pub(in crate::api) always: bool,
}

/// What a field holds.
#[derive(Clone)]
pub(in crate::api) enum Shape {
    Text,
    Bytes,
    Bool,
    Integer(&'static str),
    Float,
    Message(String),
    Special(Special),
    List(Box<Self>),
    Map(Box<Self>),
}

/// Messages whose JSON form is not an object of their fields.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::api) enum Special {
    /// RFC 3339 in seconds.
    Time,
    /// RFC 3339 in microseconds.
    MicroTime,
    /// A Go duration, `1h0m0s`.
    Duration,
    Quantity,
    IntOrString,
    /// Any JSON, carried as bytes.
    Json,
    /// A list of texts.
    Items,
    /// A schema or a boolean.
    SchemaOrBool,
    /// A schema or a list of schemas.
    SchemaOrArray,
    /// A schema or a list of texts.
    SchemaOrTexts,
}

/// The message that the schema alternatives hold.
pub(in crate::api) const SCHEMA_PROPS: &str =
    "k8s.io.apiextensions_apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";

/// The types of the Kubernetes API.
pub(in crate::api) fn registry() -> &'static Registry {
    &REGISTRY
}

impl Registry {
    fn build() -> Self {
        let pool = DescriptorPool::decode(DESCRIPTORS)
            .expect("the embedded descriptors were made by the build script");
        let marks = marks();
        let types = pool
            .all_messages()
            .filter(|message| !message.is_map_entry())
            .map(|message| (message.full_name().to_owned(), type_of(&message, &marks)))
            .collect();
        Self { pool, types }
    }

    /// The type of a kind. Kinds of `meta.k8s.io` (DeleteOptions, Status, …) belong to every group.
    pub(in crate::api) fn find(&self, api_version: &str, kind: &str) -> Option<&str> {
        let in_group = package(api_version).map(|package| format!("{package}.{kind}"));
        in_group
            .into_iter()
            .chain([format!("{META}.{kind}")])
            .find_map(|name| self.types.get_key_value(&name))
            .filter(|(_, found)| found.type_meta)
            .map(|(name, _)| name.as_str())
    }

    /// A type by its full name, which comes from another type or from [`Registry::find`].
    pub(in crate::api) fn get(&self, name: &str) -> &Type {
        self.types
            .get(name)
            .expect("types only name types of the same descriptor set")
    }

    /// The descriptor of a message.
    pub(in crate::api) fn descriptor(&self, name: &str) -> Option<MessageDescriptor> {
        self.pool.get_message_by_name(name)
    }
}

/// The package of a group and version that is built in.
fn package(api_version: &str) -> Option<String> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let folder = match group {
        "" => "core",
        "meta.k8s.io" => return Some(META.to_owned()),
        "apiextensions.k8s.io" => {
            return Some(format!(
                "k8s.io.apiextensions_apiserver.pkg.apis.apiextensions.{version}"
            ));
        }
        "rbac.authorization.k8s.io" => "rbac",
        "apps" | "autoscaling" | "batch" | "policy" => group,
        _ => match group.strip_suffix(".k8s.io")? {
            folder if folder.contains('.') => return None,
            folder => folder,
        },
    };
    Some(format!("k8s.io.api.{folder}.{version}"))
}

type Marks = HashMap<&'static str, HashMap<&'static str, &'static str>>;

/// Marks by message and field.
fn marks() -> Marks {
    MARKS
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once(' '))
        .map(|(message, fields)| {
            let fields = fields.split(' ').map(|field| {
                let end = field
                    .find(|c: char| !c.is_ascii_alphanumeric())
                    .unwrap_or(field.len());
                field.split_at(end)
            });
            (message, fields.collect())
        })
        .collect()
}

fn type_of(message: &MessageDescriptor, marks: &Marks) -> Type {
    let name = message.name().to_owned();
    let package = message.package_name().rsplit('.').next();
    let mut built = Type {
        qualified: format!("{}.{name}", package.unwrap_or_default()),
        name,
        type_meta: marks
            .get(message.full_name())
            .is_some_and(|fields| fields.get("") == Some(&"@")),
        fields: BTreeMap::new(),
        slots: HashMap::new(),
    };
    add_fields(&mut built, message, marks, true);
    built
}

/// Adds a message's fields, and in their place those of inlined messages.
fn add_fields(to: &mut Type, message: &MessageDescriptor, marks: &Marks, outermost: bool) {
    let marked = marks.get(message.full_name());
    for field in message.fields() {
        let mark = marked
            .and_then(|fields| fields.get(field.name()))
            .copied()
            .unwrap_or_default();
        let kind = field.kind();
        let slot = if let (true, Some(inlined)) = (mark.contains('~'), kind.as_message()) {
            add_fields(to, inlined, marks, false);
            Slot::Inline(inlined.full_name().to_owned())
        } else {
            let (flags, name) = mark.split_once(':').unwrap_or((mark, field.name()));
            let described = Field {
                shape: shape_of(&field),
                optional: flags.contains('?'),
                by_value: flags.contains('='),
                always: flags.contains('!'),
            };
            to.fields.insert(name.to_owned(), described);
            Slot::Field(name.to_owned())
        };
        if outermost {
            to.slots.insert(field.number(), slot);
        }
    }
}

fn shape_of(field: &FieldDescriptor) -> Shape {
    if field.is_map()
        && let Kind::Message(entry) = field.kind()
    {
        let value = shape_of_kind(&entry.map_entry_value_field().kind());
        return Shape::Map(Box::new(value));
    }
    let shape = shape_of_kind(&field.kind());
    match field.is_list() {
        true => Shape::List(Box::new(shape)),
        false => shape,
    }
}

fn shape_of_kind(kind: &Kind) -> Shape {
    match kind {
        Kind::String => Shape::Text,
        Kind::Bytes => Shape::Bytes,
        Kind::Bool => Shape::Bool,
        Kind::Double | Kind::Float => Shape::Float,
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Shape::Integer("int64"),
        Kind::Uint32 | Kind::Fixed32 => Shape::Integer("uint32"),
        Kind::Uint64 | Kind::Fixed64 => Shape::Integer("uint64"),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 | Kind::Enum(_) => Shape::Integer("int32"),
        Kind::Message(message) => match special(message.name()) {
            Some(special) => Shape::Special(special),
            None => Shape::Message(message.full_name().to_owned()),
        },
    }
}

fn special(name: &str) -> Option<Special> {
    Some(match name {
        "Time" => Special::Time,
        "MicroTime" => Special::MicroTime,
        "Duration" => Special::Duration,
        "Quantity" => Special::Quantity,
        "IntOrString" => Special::IntOrString,
        "RawExtension" | "FieldsV1" | "JSON" => Special::Json,
        "ExtraValue" | "Verbs" => Special::Items,
        "JSONSchemaPropsOrBool" => Special::SchemaOrBool,
        "JSONSchemaPropsOrArray" => Special::SchemaOrArray,
        "JSONSchemaPropsOrStringArray" => Special::SchemaOrTexts,
        _ => return None,
    })
}
