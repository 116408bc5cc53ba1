//! What every entry must have, and what entries of one's own may not.

use super::*;
use std::collections::BTreeSet;

#[test]
fn every_entry_has_licence_citation_and_hash() {
    let catalogue = Catalogue::known().unwrap();
    let ids: BTreeSet<_> = catalogue.assets.iter().map(|asset| &asset.id).collect();
    assert_eq!(ids.len(), catalogue.assets.len(), "ids are unique");
    for id in ["heart-disease", "mnist", "fashion-mnist", "banking77", "cifar10", "cifar10-small"] {
        catalogue.find(id).unwrap();
    }
    for asset in &catalogue.assets {
        assert!(
            !asset.licence.is_empty() && !asset.citation.is_empty() && !asset.files.is_empty(),
            "{}",
            asset.id
        );
        let names: BTreeSet<_> = asset.files.iter().map(|file| &file.name).collect();
        assert_eq!(names.len(), asset.files.len(), "{}: names are unique", asset.id);
        for file in &asset.files {
            assert_eq!(hex::decode(&file.sha256).unwrap().len(), 32, "{}", file.name);
            assert!(
                file.name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)),
                "{}",
                file.name
            );
            for origin in &file.sources {
                if let Origin::Https { url, .. } = origin {
                    assert!(url.starts_with("https://"), "{url}");
                }
            }
        }
    }
    assert!(catalogue.find("nothing").unwrap_err().to_string().contains("heart-disease"));
}

#[test]
fn models_are_apart_from_data_and_pinned_by_one_hash() {
    let catalogue = Catalogue::known().unwrap();
    let ids: Vec<_> = catalogue.models().map(|asset| asset.id.as_str()).collect();
    assert_eq!(ids, ["efficientnet-lite0", "minilm-l6", "smollm2-135m"]);
    assert!(catalogue.data_sets().all(|asset| !ids.contains(&asset.id.as_str())));
    assert!(catalogue.model("mnist").unwrap_err().to_string().contains("minilm-l6"));
    let one = catalogue.model("efficientnet-lite0").unwrap();
    assert_eq!(one.sha256(), one.files[0].sha256);
    // printf of the three lines of `sha256sum` through `sha256sum`
    assert_eq!(
        catalogue.model("minilm-l6").unwrap().sha256(),
        "da062441feb64ff89f5c85de28299927229436304e5e99c7df28f5f8085324b6"
    );
    for asset in catalogue.models() {
        assert!(asset.has_role(Role::Weights), "{}", asset.id);
        assert!(
            asset.files.iter().all(|file| file.bytes.is_some() && !file.sources.is_empty()),
            "{}",
            asset.id
        );
    }
}

#[test]
fn assets_of_ones_own_are_added_and_take_no_name_that_is_shipped() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("own.toml");
    let with = |text: &str| {
        std::fs::write(&path, text).unwrap();
        Catalogue::known().unwrap().with(&path)
    };
    let hash = "ab".repeat(32);
    let about = "title='t'\nlicence='l'\ncitation='c'\nkind='model'";
    let asset = |id: &str, files: &str| format!("[[asset]]\nid='{id}'\n{about}\nfiles=[{files}]\n");
    let file = |name: &str| format!("{{name='{name}',role='weights',sha256='{hash}'}}");
    let known = with(&asset("mine", &file("mine.gguf"))).unwrap();
    assert_eq!(known.model("mine").unwrap().sha256(), hash);
    assert!(known.model("minilm-l6").is_ok(), "beside what is shipped");
    let twice = asset("mine", &file("a")) + &asset("mine", &file("b"));
    for (text, part) in [
        (asset("minilm-l6", &file("mine.gguf")), "already"),
        (twice, "already"),
        (asset("mine", &file("../mine.gguf")), "their names"),
        (asset("../mine", &file("mine.gguf")), "their names"),
        (asset("mine", ""), "needs files"),
        ("[[asset]]\nid='mine'".to_owned(), "own.toml"),
    ] {
        let error = with(&text).unwrap_err().to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
    let error = Catalogue::known().unwrap().with(&folder.path().join("none.toml")).unwrap_err();
    assert!(error.to_string().contains("none.toml"), "{error}");
}
