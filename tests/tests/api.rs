//! Promise: `sheaf.v1` only grows. `proto/snapshot/sheaf.v1.txt` has every method and field; a line that goes or
//! changes would cut off sites that run an older version.

use std::{collections::BTreeSet, fmt::Write as _, fs, path::Path};

use prost::Message as _;
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorSet, field_descriptor_proto::Label};

const UPDATE: &str = "SHEAF_UPDATE_SNAPSHOT";

fn render() -> String {
    let set = FileDescriptorSet::decode(sheaf_proto::DESCRIPTOR).unwrap();
    let mut lines = BTreeSet::new();
    for file in &set.file {
        for service in &file.service {
            for method in &service.method {
                let stream = |yes| if yes { "stream " } else { "" };
                lines.insert(format!(
                    "rpc {}.{}({}{}) returns ({}{})",
                    service.name(),
                    method.name(),
                    stream(method.client_streaming()),
                    short(method.input_type()),
                    stream(method.server_streaming()),
                    short(method.output_type()),
                ));
            }
        }
        file.message_type.iter().for_each(|message| fields(message, "", &mut lines));
        file.enum_type.iter().for_each(|of| values(of, "", &mut lines));
    }
    lines.into_iter().fold(String::new(), |mut text, line| {
        writeln!(text, "{line}").unwrap();
        text
    })
}

fn short(name: &str) -> &str {
    name.trim_start_matches(".sheaf.v1.")
}

fn fields(message: &DescriptorProto, outer: &str, lines: &mut BTreeSet<String>) {
    let name = format!("{outer}{}", message.name());
    lines.insert(format!("message {name}"));
    for field in &message.field {
        let repeated = if field.label() == Label::Repeated { "repeated " } else { "" };
        let of = if field.type_name().is_empty() {
            format!("{:?}", field.r#type()).to_lowercase()
        } else {
            short(field.type_name()).to_owned()
        };
        let one_of = field
            .oneof_index
            .map(|at| format!(" in {}", message.oneof_decl[at as usize].name()))
            .unwrap_or_default();
        lines.insert(format!("message {name} {:>3} {repeated}{of} {}{one_of}", field.number(), field.name()));
    }
    let inner = format!("{name}.");
    message.nested_type.iter().for_each(|nested| fields(nested, &inner, lines));
    message.enum_type.iter().for_each(|of| values(of, &inner, lines));
}

fn values(of: &EnumDescriptorProto, outer: &str, lines: &mut BTreeSet<String>) {
    for value in &of.value {
        lines.insert(format!("enum {outer}{} {:>3} {}", of.name(), value.number(), value.name()));
    }
}

/// Lines that a new snapshot lacks.
fn missing<'a>(snapshot: &'a str, now: &str) -> Vec<&'a str> {
    let now: BTreeSet<_> = now.lines().collect();
    snapshot.lines().filter(|line| !now.contains(line)).collect()
}

#[test]
fn methods_and_fields_are_only_added() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto/snapshot/sheaf.v1.txt");
    let now = render();
    let snapshot = fs::read_to_string(&path).unwrap_or_default();
    let gone = missing(&snapshot, &now);
    assert!(
        gone.is_empty(),
        "sheaf.v1 lost or changed what older sites use:\n  {}\nAdd a field or a method beside it instead; numbers \
         are never used again.",
        gone.join("\n  ")
    );
    if std::env::var_os(UPDATE).is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &now).unwrap();
        return;
    }
    assert!(
        snapshot == now,
        "sheaf.v1 has grown by\n  {}\nIf that is meant, write it down: {UPDATE}=1 cargo test -p sheaf-tests api",
        missing(&now, &snapshot).join("\n  ")
    );
}

#[test]
fn a_removed_and_a_renumbered_field_are_seen() {
    let now = render();
    let line =
        now.lines().find(|line| line.starts_with("message TaskResult ") && line.ends_with(" key")).unwrap();
    assert_eq!(line, "message TaskResult   2 string key");
    let renumbered = now.replace(line, "message TaskResult   9 string key");
    assert_eq!(missing(&now, &renumbered), [line]);
    let removed = now.replace(&format!("{line}\n"), "");
    assert_eq!(missing(&now, &removed), [line]);
    assert!(missing(&removed, &now).is_empty(), "a new field is none of these");
}
