//! Which tenant and endpoint a container asks for.
//!
//! CDI devices, annotations and `--masq-device` are the same question asked in different
//! ways: what they say together must not contradict itself.

use crate::ContainerError;
use crate::oci::Config;
use masq_policy::{EndpointName, TenantName};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// Annotation with the tenant.
pub const TENANT: &str = "dev.masq/tenant";
/// Annotation with the endpoint, or class of endpoints, within the tenant.
pub const ENDPOINT: &str = "dev.masq/endpoint";
/// Annotation that says which library to bring along; `none` is its one value.
pub const LIBRARY: &str = "dev.masq/library";

/// A CDI device without its kind: `TENANT` or `TENANT:ENDPOINT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// The tenant.
    pub tenant: TenantName,
    /// The endpoint or class within it.
    pub endpoint: Option<EndpointName>,
}

impl FromStr for Device {
    type Err = ContainerError;

    /// Takes the kind before it as well: `masq.dev/endpoint=blue:pod`.
    fn from_str(text: &str) -> Result<Self, ContainerError> {
        let wrong = |e: masq_policy::NameError| {
            ContainerError::Asked(format!(
                "{text:?} is no device of masq: {e}\n  \
                 a device is TENANT or TENANT:ENDPOINT, as in blue:pod"
            ))
        };
        let name = text
            .strip_prefix(crate::cdi::KIND)
            .and_then(|rest| rest.strip_prefix('='))
            .unwrap_or(text);
        let (tenant, endpoint) = match name.split_once(':') {
            Some((tenant, endpoint)) => (tenant, Some(endpoint)),
            None => (name, None),
        };
        Ok(Self {
            tenant: tenant.parse().map_err(wrong)?,
            endpoint: endpoint.map(str::parse).transpose().map_err(wrong)?,
        })
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.endpoint {
            Some(endpoint) => write!(f, "{}:{endpoint}", self.tenant),
            None => write!(f, "{}", self.tenant),
        }
    }
}

/// What a container asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// The tenant; without one, the policy's selectors choose.
    pub tenant: Option<TenantName>,
    /// The endpoint or class within it.
    pub endpoint: Option<EndpointName>,
    /// Whether the image is to be left without masq's library.
    pub no_library: bool,
}

impl Asked {
    /// Puts together what `devices` and `annotations` ask for.
    ///
    /// # Errors
    /// [`ContainerError::Asked`] if they contradict each other, or name what cannot be
    /// a name.
    pub fn new(
        devices: &[Device],
        annotations: &BTreeMap<String, String>,
    ) -> Result<Self, ContainerError> {
        let mut tenant = Choice::new("tenants");
        let mut endpoint = Choice::new("endpoints");
        for device in devices {
            let source = format!("device {device}");
            tenant.say(device.tenant.clone(), &source)?;
            if let Some(name) = &device.endpoint {
                endpoint.say(name.clone(), &source)?;
            }
        }
        if let Some(name) = annotation(annotations, TENANT)? {
            tenant.say(name, &format!("annotation {TENANT}"))?;
        }
        if let Some(name) = annotation(annotations, ENDPOINT)? {
            endpoint.say(name, &format!("annotation {ENDPOINT}"))?;
        }
        let no_library = match annotations.get(LIBRARY).map(String::as_str) {
            None => false,
            Some("none") => true,
            Some(other) => {
                return Err(ContainerError::Asked(format!(
                    "annotation {LIBRARY} is {other:?}; its one value is `none`, \
                     which leaves the image's own libraries alone"
                )));
            }
        };
        if let (None, Some((endpoint, source))) = (&tenant.said, &endpoint.said) {
            return Err(ContainerError::Asked(format!(
                "{source} asks for the endpoint {endpoint} of no tenant\n  \
                 name the tenant by annotation {TENANT}"
            )));
        }
        Ok(Self {
            tenant: tenant.said.map(|(name, _)| name),
            endpoint: endpoint.said.map(|(name, _)| name),
            no_library,
        })
    }

    /// Whether nothing is asked for.
    pub fn is_nothing(&self) -> bool {
        self.tenant.is_none()
    }
}

fn annotation<T: FromStr<Err = masq_policy::NameError>>(
    annotations: &BTreeMap<String, String>,
    key: &str,
) -> Result<Option<T>, ContainerError> {
    annotations
        .get(key)
        .map(|text| {
            text.parse().map_err(|e| {
                ContainerError::Asked(format!(
                    "annotation {key} is {text:?}, which is no name: {e}"
                ))
            })
        })
        .transpose()
}

/// One answer from several sources.
struct Choice<T> {
    plural: &'static str,
    said: Option<(T, String)>,
}

impl<T: PartialEq + fmt::Display> Choice<T> {
    fn new(plural: &'static str) -> Self {
        Self { plural, said: None }
    }

    fn say(&mut self, value: T, source: &str) -> Result<(), ContainerError> {
        match &self.said {
            Some((before, by)) if *before != value => Err(ContainerError::Asked(format!(
                "the container asks for two {}: {before} by {by}, and {value} by {source}\n  \
                 a container is one endpoint; drop one of the two",
                self.plural
            ))),
            Some(_) => Ok(()),
            None => {
                self.said = Some((value, source.to_owned()));
                Ok(())
            }
        }
    }
}

/// The devices that all of masq's hooks in `config` name: every `--device` of a CDI
/// specification becomes a hook of its own, and each is run.
///
/// # Errors
/// [`ContainerError::Asked`] if one of them names no device.
pub(crate) fn devices_of_hooks(config: &Config) -> Result<Vec<Device>, ContainerError> {
    let mut devices: Vec<Device> = Vec::new();
    let hooks = config
        .value
        .pointer("/hooks/createRuntime")
        .and_then(Value::as_array);
    for hook in hooks.into_iter().flatten() {
        let args: Vec<&str> = hook
            .get("args")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        if !args
            .windows(2)
            .any(|pair| pair == ["hook", "createRuntime"])
        {
            continue;
        }
        for pair in args.windows(2) {
            if let ["--device", name] = pair {
                let device: Device = name.parse()?;
                if !devices.contains(&device) {
                    devices.push(device);
                }
            }
        }
    }
    Ok(devices)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn annotations(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    fn ask(devices: &[&str], pairs: &[(&str, &str)]) -> Result<Asked, String> {
        let devices: Vec<Device> = devices.iter().map(|d| d.parse().unwrap()).collect();
        Asked::new(&devices, &annotations(pairs)).map_err(|e| e.to_string())
    }

    #[test]
    fn a_device_and_annotations_that_agree_are_one_answer() {
        let asked = ask(
            &["blue", "blue:pod"],
            &[(TENANT, "blue"), (ENDPOINT, "pod")],
        )
        .unwrap();
        assert_eq!(asked.tenant.unwrap().as_str(), "blue");
        assert_eq!(asked.endpoint.unwrap().as_str(), "pod");
        assert!(ask(&[], &[("other", "x")]).unwrap().is_nothing());
    }

    #[test]
    fn contradictions_are_refused_and_both_sides_named() {
        for (devices, pairs) in [
            (&["blue", "red"][..], &[][..]),
            (&["blue:a", "blue:b"], &[]),
            (&["blue:a"], &[(TENANT, "red")]),
            (&["blue:a"], &[(ENDPOINT, "b")]),
        ] {
            let error = ask(devices, pairs).unwrap_err();
            assert!(error.contains("asks for two"), "{error}");
        }
        let error = ask(&[], &[(ENDPOINT, "a")]).unwrap_err();
        assert!(error.contains("no tenant"), "{error}");
    }

    #[test]
    fn annotations_with_path_characters_are_refused() {
        for bad in ["", "..", "../red", "a/b", "a\0b", "blue:pod", " blue", "-x"] {
            assert!(ask(&[], &[(TENANT, bad)]).is_err(), "{bad:?}");
            assert!(
                ask(&["blue"], &[(ENDPOINT, bad)]).is_err(),
                "{bad:?} as endpoint"
            );
        }
        assert!(ask(&["blue"], &[(LIBRARY, "old")]).is_err());
        assert!(ask(&["blue"], &[(LIBRARY, "none")]).unwrap().no_library);
    }

    #[test]
    fn every_hook_of_masq_in_the_config_counts() {
        let config = serde_json::json!({"hooks": {"createRuntime": [
            {"path": "/usr/bin/masq", "args": ["masq", "hook", "createRuntime", "--device", "blue"]},
            {"path": "/usr/bin/masq", "args": ["masq", "hook", "createRuntime", "--device", "red:a"]},
            {"path": "/bin/other", "args": ["other", "--device", "green"]},
            {"path": "/bin/bare"},
        ]}});
        let config = Config::read(config.to_string().as_bytes(), "c".into()).unwrap();
        let devices = devices_of_hooks(&config).unwrap();
        let text: Vec<_> = devices.iter().map(ToString::to_string).collect();
        assert_eq!(text, ["blue", "red:a"]);
        assert!(Asked::new(&devices, &BTreeMap::new()).is_err());
    }

    proptest! {
        #[test]
        fn a_device_reads_what_it_writes(text in "[a-z.:/=]{0,20}") {
            if let Ok(device) = text.parse::<Device>() {
                prop_assert_eq!(device.to_string().parse::<Device>().unwrap(), device);
            }
        }
    }
}
