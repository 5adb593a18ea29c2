//! Reads `table.tsv`. Its line formats are described in `scripts/schema.py`.

use super::{Field, Instead, ListType, PatchStrategy, Schema, Type, TypeDef, TypeId};
use std::collections::HashMap;

const JSON_SCHEMA: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";
/// The one list type with a protobuf message of its own.
const WRAPPED_LIST: &str = "v1.Verbs";

/// Parse the table. It is compiled in and checked by the tests below, so that what is malformed is skipped here
/// rather than reported.
pub(super) fn table(text: &'static str) -> Schema {
    let rows = || text.lines().map(|line| Row(line.split('\t').collect()));
    let names = rows().filter(|row| row.at(0) == "T").enumerate();
    let ids: HashMap<&str, TypeId> = names.map(|(i, row)| (row.at(1), TypeId(i as u32))).collect();
    let mut types: Vec<TypeDef> = Vec::with_capacity(ids.len());
    for row in rows() {
        match row.at(0) {
            "T" => types.push(row.type_def()),
            _ => {
                if let (Some(def), Some(field)) = (types.last_mut(), row.field(&ids)) {
                    def.fields.push(field);
                }
            }
        }
    }
    types.iter_mut().for_each(|def| def.fields.shrink_to_fit());
    Schema::new(types)
}

struct Row(Vec<&'static str>);

impl Row {
    /// A column; absent ones are empty.
    fn at(&self, column: usize) -> &'static str {
        self.0.get(column).copied().unwrap_or("")
    }

    fn type_def(&self) -> TypeDef {
        let gvk = |text: &'static str| {
            let mut parts = text.splitn(3, '/');
            Some((parts.next()?, parts.next()?, parts.next()?))
        };
        let gvks = self.at(3).split_ascii_whitespace().filter_map(gvk).collect();
        TypeDef { name: self.at(1), fields: Vec::new(), gvks, atomic: self.at(2).contains('a') }
    }

    fn field(&self, ids: &HashMap<&str, TypeId>) -> Option<Field> {
        let has = |flag: char| self.at(4).contains(flag);
        let mut outer = self.at(6).split('/').map(|n| n.parse().unwrap_or(0));
        let list = match self.at(7) {
            "set" => ListType::Set,
            text => match text.strip_prefix("map:") {
                Some(keys) => ListType::Map(keys.split(',').collect()),
                None => ListType::Atomic,
            },
        };
        let merge_key = Some(self.at(8)).filter(|key| !key.is_empty());
        Some(Field {
            json: self.at(1),
            ty: parse_type(self.at(2), ids)?,
            required: has('r'),
            pointer: has('p'),
            omitempty: has('o'),
            omitzero: has('z'),
            go: self.at(3),
            pb: self.at(5).parse().unwrap_or(0),
            outer: [outer.next().unwrap_or(0), outer.next().unwrap_or(0)],
            list,
            atomic: has('a'),
            patch: PatchStrategy { merge: has('m'), retain_keys: has('k'), merge_key },
            default: serde_json::from_str(self.at(9)).ok(),
            embedded: self.at(10),
            wrapped: self.at(3) == WRAPPED_LIST,
        })
    }
}

fn parse_type(text: &str, ids: &HashMap<&str, TypeId>) -> Option<Type> {
    if let Some(inner) = text.strip_prefix("[]") {
        return Some(Type::List(Box::new(parse_type(inner, ids)?)));
    }
    if let Some(inner) = text.strip_prefix("{}") {
        return Some(Type::Map(Box::new(parse_type(inner, ids)?)));
    }
    if let Some(name) = text.strip_prefix("S:") {
        return ids.get(name).map(|id| Type::Struct(*id));
    }
    let schema_or = |instead| ids.get(JSON_SCHEMA).map(|id| Type::SchemaOr(*id, instead));
    Some(match text {
        "string" => Type::String,
        "bool" => Type::Bool,
        "int32" => Type::Int32,
        "int64" => Type::Int64,
        "float64" => Type::Float64,
        "bytes" => Type::Bytes,
        "quantity" => Type::Quantity,
        "intorstring" => Type::IntOrString,
        "time" => Type::Time,
        "microtime" => Type::MicroTime,
        "duration" => Type::Duration,
        "raw" => Type::Raw,
        "fieldsv1" => Type::FieldsV1,
        "json" | "interface" => Type::Json,
        "json:array" => return schema_or(Instead::Schemas),
        "json:bool" => return schema_or(Instead::Bool),
        "json:stringarray" => return schema_or(Instead::Strings),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::schema::builtin;

    #[test]
    fn every_line_of_the_table_loads() {
        let text = include_str!("table.tsv");
        let lines = text.lines().count();
        let loaded: usize = builtin().types.iter().map(|t| 1 + t.fields.len()).sum();
        assert_eq!(loaded, lines);
        for def in &builtin().types {
            assert!(
                def.fields.windows(2).all(|w| w[0].json < w[1].json),
                "{} is sorted and free of duplicates",
                def.name
            );
        }
    }

    #[test]
    fn the_facts_that_others_build_on() {
        let schema = builtin();
        let field = |group, version, kind, path: &[&str]| {
            let mut id = schema.of(group, version, kind).unwrap_or_else(|| panic!("{group}/{version} {kind}"));
            let mut found = None;
            for name in path {
                let field = schema.get(id).field(name).unwrap_or_else(|| panic!("{kind} {name}"));
                let mut ty = &field.ty;
                while let Type::List(inner) | Type::Map(inner) = ty {
                    ty = inner;
                }
                if let Type::Struct(next) = ty {
                    id = *next;
                }
                found = Some(field);
            }
            found.expect("a path")
        };
        let ports = field("", "v1", "Service", &["spec", "ports"]);
        assert_eq!(ports.list, ListType::Map(vec!["port", "protocol"]));
        assert_eq!((ports.patch.merge, ports.patch.merge_key), (true, Some("port")));
        let protocol = field("", "v1", "Service", &["spec", "ports", "protocol"]);
        assert_eq!(protocol.default, Some("TCP".into()));
        let replicas = field("apps", "v1", "Deployment", &["spec", "replicas"]);
        assert_eq!((&replicas.ty, replicas.pointer, replicas.pb), (&Type::Int32, true, 1));
        let strategy = field("apps", "v1", "Deployment", &["spec", "strategy"]);
        assert!(strategy.patch.retain_keys);
        let empty_dir = field("", "v1", "Pod", &["spec", "volumes", "emptyDir"]);
        assert_eq!((empty_dir.pb, empty_dir.outer), (2, [2, 0]));
        assert!(
            schema.get(field("", "v1", "Pod", &["spec"]).ty_struct()).field("containers").is_some_and(|f| f.required)
        );
        for (group, version, kind) in [
            ("apps", "v1", "DeleteOptions"),
            ("example.com", "v9", "WatchEvent"),
            ("", "v1", "Status"),
            ("", "v1", "PodList"),
            ("meta.k8s.io", "v1", "Table"),
            ("meta.k8s.io", "v1", "PartialObjectMetadataList"),
            ("autoscaling", "v1", "Scale"),
            ("policy", "v1", "Eviction"),
            ("authentication.k8s.io", "v1", "TokenRequest"),
            ("authorization.k8s.io", "v1", "SelfSubjectAccessReview"),
            ("apiextensions.k8s.io", "v1", "CustomResourceDefinition"),
            ("apiregistration.k8s.io", "v1", "APIService"),
        ] {
            assert!(schema.of(group, version, kind).is_some(), "{group}/{version} {kind}");
        }
    }

    impl Field {
        fn ty_struct(&self) -> TypeId {
            let Type::Struct(id) = self.ty else { panic!("{} is no struct", self.json) };
            id
        }
    }
}
