//! The image's name and the labels that a runtime's caller gave, where a runtime tells.
//!
//! OCI has no place for the name of an image. CRI runtimes tell it by annotation; of podman
//! and Docker the records beside the bundle are read (never by asking them: they hold a
//! lock on the container meanwhile). What cannot be read is not known.

use crate::oci::{Config, open_regular};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

const MAX_RECORD: u64 = 64 << 20;
/// Annotations by which CRI runtimes name the image.
const CRI: &[&str] = &[
    "io.kubernetes.cri.image-name",
    "io.kubernetes.cri-o.ImageName",
    "io.kubernetes.cri-o.Image",
];

/// What is known of a container beside its bundle.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) image: Option<String>,
    pub(crate) labels: BTreeMap<String, String>,
}

/// Looks for it.
pub(crate) fn known(
    id: &str,
    bundle: &Path,
    config: &Config,
    annotations: &BTreeMap<String, String>,
) -> Known {
    if let Some(image) = CRI.iter().find_map(|key| annotations.get(*key)) {
        return Known {
            image: Some(image.clone()),
            ..Known::default()
        };
    }
    if let Some(image) = podman(id, bundle) {
        return Known {
            image: Some(image),
            ..Known::default()
        };
    }
    docker(id, config).unwrap_or_default()
}

fn json<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let mut text = Vec::new();
    let file = open_regular(path).ok()?;
    file.take(MAX_RECORD).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

/// The bundle is `GRAPHROOT/DRIVER-containers/ID/userdata`, and
/// `GRAPHROOT/DRIVER-containers` has the records of all containers.
fn podman(id: &str, bundle: &Path) -> Option<String> {
    #[derive(Deserialize)]
    struct Entry {
        id: String,
        #[serde(default)]
        metadata: String,
    }
    #[derive(Deserialize)]
    struct Metadata {
        #[serde(rename = "image-name")]
        image: String,
    }
    if bundle.file_name()? != "userdata" {
        return None;
    }
    let own = bundle.parent()?;
    if own.file_name()?.to_str()? != id {
        return None;
    }
    ["containers.json", "volatile-containers.json"]
        .iter()
        .filter_map(|name| json::<Vec<Entry>>(&own.with_file_name(name)))
        .flatten()
        .find(|entry| entry.id == id)
        .and_then(|entry| serde_json::from_str::<Metadata>(&entry.metadata).ok())
        .map(|metadata| metadata.image)
        .filter(|image| !image.is_empty())
}

/// Docker binds `DATA_ROOT/containers/ID/hostname` into the container.
fn docker(id: &str, config: &Config) -> Option<Known> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Container {
        image: String,
        config: Settings,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Settings {
        image: String,
        labels: Option<BTreeMap<String, String>>,
    }
    let dir = container_dir(id, config)?;
    let container: Container = json(&dir.join("config.v2.json"))?;
    let labels = container.config.labels.unwrap_or_default();
    Some(Known {
        image: Some(container.config.image),
        labels: match image_labels(&dir, &container.image) {
            Some(of_image) => without(labels, &of_image),
            None => BTreeMap::new(),
        },
    })
}

fn container_dir(id: &str, config: &Config) -> Option<PathBuf> {
    let mounts = config.value.get("mounts")?.as_array()?;
    mounts.iter().find_map(|mount| {
        let destination = mount.get("destination")?.as_str()?;
        if !matches!(
            destination,
            "/etc/hostname" | "/etc/hosts" | "/etc/resolv.conf"
        ) {
            return None;
        }
        let dir = Path::new(mount.get("source")?.as_str()?).parent()?;
        let fits = dir.file_name()?.to_str()? == id && dir.parent()?.file_name()? == "containers";
        fits.then(|| dir.to_owned())
    })
}

/// Labels that whoever built the image wrote. They are no word of who started the
/// container.
fn image_labels(container_dir: &Path, image: &str) -> Option<BTreeMap<String, String>> {
    let digest = image.strip_prefix("sha256:")?;
    if !digest.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let drivers = container_dir.parent()?.with_file_name("image");
    let config: Value = std::fs::read_dir(drivers)
        .ok()?
        .flatten()
        .find_map(|driver| json(&driver.path().join("imagedb/content/sha256").join(digest)))?;
    match config.pointer("/config/Labels") {
        None | Some(Value::Null) => Some(BTreeMap::new()),
        Some(labels) => BTreeMap::deserialize(labels).ok(),
    }
}

fn without(
    mut labels: BTreeMap<String, String>,
    of_image: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    labels.retain(|key, value| of_image.get(key) != Some(value));
    labels
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn write(path: &Path, value: &Value) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, value.to_string()).unwrap();
    }

    fn config(value: &Value) -> Config {
        Config::read(value.to_string().as_bytes(), "c".into()).unwrap()
    }

    #[test]
    fn podmans_records_name_the_image() {
        let dir = tempfile::tempdir().unwrap();
        let containers = dir.path().join("overlay-containers");
        write(
            &containers.join("containers.json"),
            &json!([{"id": "x", "metadata": "{}"},
                    {"id": "c1", "metadata": "{\"image-name\":\"localhost/a:1\",\"name\":\"n\"}"}]),
        );
        let known = |id: &str| {
            let bundle = containers.join(id).join("userdata");
            known(id, &bundle, &config(&json!({})), &BTreeMap::new()).image
        };
        assert_eq!(known("c1").as_deref(), Some("localhost/a:1"));
        assert_eq!(known("x"), None);
    }

    #[test]
    fn labels_that_an_image_brings_are_not_its_starters() {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("containers/c1");
        write(
            &own.join("config.v2.json"),
            &json!({"Image": "sha256:ab12", "Config": {"Image": "perftest",
                    "Labels": {"team": "blue", "built": "yes", "over": "new"}}}),
        );
        let config = config(&json!({"mounts": [
            {"destination": "/etc/hostname", "source": own.join("hostname")}]}));
        let look = || known("c1", Path::new("/b"), &config, &BTreeMap::new());
        assert_eq!(look().image.as_deref(), Some("perftest"));
        assert!(look().labels.is_empty(), "the image's own are not known");
        write(
            &dir.path()
                .join("image/overlay2/imagedb/content/sha256/ab12"),
            &json!({"config": {"Labels": {"built": "yes", "over": "old"}}}),
        );
        let labels: Vec<_> = look().labels.into_keys().collect();
        assert_eq!(labels, ["over", "team"]);
    }

    #[test]
    fn kubernetes_runtimes_tell_by_annotation() {
        let annotations = [(CRI[0].to_owned(), "reg/app:2".to_owned())].into();
        let known = known("c", Path::new("/b"), &config(&json!({})), &annotations);
        assert_eq!(known.image.as_deref(), Some("reg/app:2"));
    }
}
