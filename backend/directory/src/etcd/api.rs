//! What masq asks of etcd, by the JSON form of its interface (`/v3/…`), which every
//! member serves on its client port.

use super::EtcdConfig;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};
use std::io::{self, BufRead, BufReader, Read};
use std::time::Duration;
use ureq::Agent;

/// How long a member may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// The longest answer, and the longest line of a watch.
const MAX_ANSWER: u64 = 8 << 20;
/// gRPC's code for a token that is missing or too old.
const UNAUTHENTICATED: u64 = 16;

/// Why etcd did not do something.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    /// No member can be reached.
    #[error("{member}: {source}")]
    Unreachable { member: String, source: io::Error },
    /// A member says no.
    #[error("{member} answers: {message}")]
    Refused {
        member: String,
        code: u64,
        message: String,
    },
    /// An answer that is none.
    #[error("{member}: not an answer of etcd: {reason}")]
    Nonsense { member: String, reason: String },
}

/// Bytes of keys and values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Bytes(pub(super) Vec<u8>);

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        let bytes = STANDARD.decode(text);
        bytes.map(Self).map_err(serde::de::Error::custom)
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&STANDARD.encode(&self.0))
    }
}

fn bytes(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// A number, which JSON's numbers cannot hold, so that it is text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Number(pub(super) i64);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let number = match Value::deserialize(d)? {
            Value::String(text) => text.parse().ok(),
            Value::Number(number) => number.as_i64(),
            _ => None,
        };
        let number = number.ok_or_else(|| serde::de::Error::custom("not a number"))?;
        Ok(Self(number))
    }
}

/// A key with its value.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct KeyValue {
    pub(super) key: Bytes,
    #[serde(default)]
    pub(super) value: Bytes,
    #[serde(default)]
    pub(super) mod_revision: Number,
    #[serde(default)]
    pub(super) lease: Number,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Header {
    #[serde(default)]
    pub(super) revision: Number,
}

/// Keys, with the revision at which they were so.
#[derive(Debug, Deserialize)]
pub(super) struct Range {
    #[serde(default)]
    pub(super) header: Header,
    #[serde(default)]
    pub(super) kvs: Vec<KeyValue>,
    #[serde(default)]
    pub(super) more: bool,
}

/// What became of a key.
#[derive(Debug, Deserialize)]
pub(super) struct Event {
    /// Absent for PUT.
    #[serde(default, rename = "type")]
    pub(super) kind: String,
    pub(super) kv: KeyValue,
}

impl Event {
    pub(super) fn is_delete(&self) -> bool {
        self.kind == "DELETE"
    }
}

/// One message of a watch.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Watched {
    #[serde(default)]
    pub(super) canceled: bool,
    #[serde(default)]
    pub(super) cancel_reason: String,
    #[serde(default)]
    pub(super) events: Vec<Event>,
}

/// What a claim came to.
#[derive(Debug)]
pub(super) enum Claimed {
    /// The key is ours.
    Done,
    /// It has a value.
    Taken(KeyValue),
}

#[derive(Deserialize)]
struct Txn {
    #[serde(default)]
    succeeded: bool,
    #[serde(default)]
    responses: Vec<TxnResponse>,
}

#[derive(Deserialize)]
struct TxnResponse {
    #[serde(default)]
    response_range: Option<Range>,
}

/// A way to etcd. It stays with the member that answered last.
pub(super) struct Api {
    agent: Agent,
    config: EtcdConfig,
    current: usize,
    token: Option<String>,
}

impl Api {
    pub(super) fn new(config: EtcdConfig) -> Self {
        let tls = config.tls.as_ref().map(|tls| tls.config());
        let agent = Agent::config_builder()
            .tls_config(tls.unwrap_or_default())
            .https_only(config.tls.is_some())
            // What the environment says is for other programs.
            .proxy(None)
            .max_redirects(0)
            .http_status_as_error(false)
            .timeout_connect(Some(PATIENCE))
            .timeout_send_body(Some(PATIENCE))
            .timeout_recv_response(Some(PATIENCE))
            .timeout_per_read(Some(config.silence))
            .user_agent(concat!("masqd/", env!("CARGO_PKG_VERSION")))
            .build();
        Self {
            agent: agent.into(),
            config,
            current: 0,
            token: None,
        }
    }

    fn member(&self) -> String {
        let members = &self.config.members;
        members
            .get(self.current % members.len().max(1))
            .cloned()
            .unwrap_or_default()
    }

    /// Posts to the current member, and to the others if that cannot be reached.
    fn open(&mut self, path: &str, body: &Value) -> Result<(String, ureq::Body), ApiError> {
        let mut last = None;
        for _ in 0..self.config.members.len() {
            match self.open_authenticated(path, body) {
                Err(error @ ApiError::Unreachable { .. }) => {
                    self.current = self.current.wrapping_add(1);
                    last = Some(error);
                }
                other => return other,
            }
        }
        Err(last.unwrap_or(ApiError::Nonsense {
            member: String::new(),
            reason: "no member".into(),
        }))
    }

    fn open_authenticated(
        &mut self,
        path: &str,
        body: &Value,
    ) -> Result<(String, ureq::Body), ApiError> {
        if self.config.user.is_some() && self.token.is_none() {
            self.authenticate()?;
        }
        let first = self.post(path, body);
        let is_stale = |error: &ApiError| match error {
            ApiError::Refused { code, message, .. } => {
                *code == UNAUTHENTICATED || message.contains("invalid auth token")
            }
            _ => false,
        };
        match first {
            Err(error) if is_stale(&error) && self.config.user.is_some() => {
                self.authenticate()?;
                self.post(path, body)
            }
            other => other,
        }
    }

    fn authenticate(&mut self) -> Result<(), ApiError> {
        #[derive(Deserialize)]
        struct Token {
            token: String,
        }
        self.token = None;
        let Some((name, password)) = self.config.user.clone() else {
            return Ok(());
        };
        let body = json!({ "name": name, "password": password });
        let (member, answer) = self.post("auth/authenticate", &body)?;
        let token: Token = read(&member, answer)?;
        self.token = Some(token.token);
        Ok(())
    }

    fn post(&self, path: &str, body: &Value) -> Result<(String, ureq::Body), ApiError> {
        let member = self.member();
        let unreachable = |error: ureq::Error| {
            let member = member.clone();
            let source = match error {
                ureq::Error::Io(source) => source,
                ureq::Error::Timeout(_) => io::ErrorKind::TimedOut.into(),
                other => io::Error::other(other.to_string()),
            };
            ApiError::Unreachable { member, source }
        };
        let scheme = if self.config.tls.is_some() {
            "https"
        } else {
            "http"
        };
        let mut request = self
            .agent
            .post(format!("{scheme}://{member}/v3/{path}"))
            .content_type("application/json")
            // A member that has lost the others is to say so.
            .header("Grpc-Metadata-hasleader", "true");
        if let Some(token) = &self.token {
            request = request.header("Authorization", token);
        }
        let answer = request.send(body.to_string()).map_err(unreachable)?;
        let status = answer.status();
        let body = answer.into_body();
        if status.is_success() {
            return Ok((member, body));
        }
        #[derive(Default, Deserialize)]
        struct Failure {
            #[serde(default)]
            code: u64,
            #[serde(default)]
            message: String,
            #[serde(default)]
            error: Value,
        }
        let failure: Failure = read(&member, body).unwrap_or_default();
        let message = match (failure.message.as_str(), failure.error.as_str()) {
            ("", Some(error)) => error.to_owned(),
            ("", None) => format!("HTTP status {}", status.as_u16()),
            (message, _) => message.to_owned(),
        };
        // A member without a leader is as good as none.
        if status.is_server_error() && failure.code != UNAUTHENTICATED {
            let source = io::Error::other(printable(&message));
            return Err(ApiError::Unreachable { member, source });
        }
        Err(ApiError::Refused {
            member,
            code: failure.code,
            message: printable(&message),
        })
    }

    pub(super) fn call<T: DeserializeOwned>(
        &mut self,
        path: &str,
        body: &Value,
    ) -> Result<T, ApiError> {
        let (member, answer) = self.open(path, body)?;
        read(&member, answer)
    }

    /// A lease that ends so many seconds after it was last kept alive.
    pub(super) fn grant(&mut self, ttl: Duration) -> Result<i64, ApiError> {
        #[derive(Deserialize)]
        struct Granted {
            #[serde(rename = "ID")]
            id: Number,
        }
        let body = json!({ "TTL": ttl.as_secs().max(1).to_string() });
        let granted: Granted = self.call("lease/grant", &body)?;
        Ok(granted.id.0)
    }

    /// False if the lease has ended.
    pub(super) fn keep_alive(&mut self, lease: i64) -> Result<bool, ApiError> {
        #[derive(Deserialize)]
        struct Answer {
            result: Kept,
        }
        #[derive(Deserialize)]
        struct Kept {
            #[serde(default, rename = "TTL")]
            ttl: Number,
        }
        let body = json!({ "ID": lease.to_string() });
        let answer: Answer = self.call("lease/keepalive", &body)?;
        Ok(answer.result.ttl.0 > 0)
    }

    /// Ends a lease, and all that hangs on it.
    pub(super) fn revoke(&mut self, lease: i64) -> Result<(), ApiError> {
        let body = json!({ "ID": lease.to_string() });
        self.call::<Value>("lease/revoke", &body).map(drop)
    }

    /// Makes a key, unless there is one.
    pub(super) fn create(
        &mut self,
        key: &[u8],
        value: &[u8],
        lease: i64,
    ) -> Result<Claimed, ApiError> {
        let compare = json!({
            "key": bytes(key), "target": "CREATE", "result": "EQUAL", "create_revision": "0",
        });
        self.put_if(compare, key, value, lease)
    }

    /// Replaces what is there, unless it was replaced meanwhile.
    pub(super) fn replace(
        &mut self,
        old: &KeyValue,
        value: &[u8],
        lease: i64,
    ) -> Result<Claimed, ApiError> {
        let key = &old.key.0;
        let compare = json!({
            "key": bytes(key), "target": "MOD", "result": "EQUAL",
            "mod_revision": old.mod_revision.0.to_string(),
        });
        self.put_if(compare, key, value, lease)
    }

    fn put_if(
        &mut self,
        compare: Value,
        key: &[u8],
        value: &[u8],
        lease: i64,
    ) -> Result<Claimed, ApiError> {
        let key = bytes(key);
        let put = json!({ "key": key, "value": bytes(value), "lease": lease.to_string() });
        let body = json!({
            "compare": [compare],
            "success": [{ "request_put": put }],
            "failure": [{ "request_range": { "key": key } }],
        });
        let answer: Txn = self.call("kv/txn", &body)?;
        if answer.succeeded {
            return Ok(Claimed::Done);
        }
        let ranges = answer
            .responses
            .into_iter()
            .filter_map(|r| r.response_range);
        match ranges.flat_map(|range| range.kvs).next() {
            Some(found) => Ok(Claimed::Taken(found)),
            // It went meanwhile: its end will be seen, and the claim made again.
            None => Ok(Claimed::Taken(KeyValue::default())),
        }
    }

    /// Removes a key, if it hangs on this lease.
    pub(super) fn delete(&mut self, key: &[u8], lease: i64) -> Result<(), ApiError> {
        let key = bytes(key);
        let compare = json!({
            "key": key, "target": "LEASE", "result": "EQUAL", "lease": lease.to_string(),
        });
        let body = json!({
            "compare": [compare],
            "success": [{ "request_delete_range": { "key": key } }],
        });
        self.call::<Txn>("kv/txn", &body).map(drop)
    }

    /// Keys from `first` to before `last`, at `revision` or now.
    pub(super) fn range(
        &mut self,
        first: &[u8],
        last: &[u8],
        limit: u32,
        revision: i64,
    ) -> Result<Range, ApiError> {
        let body = json!({
            "key": bytes(first), "range_end": bytes(last), "limit": limit.to_string(),
            "revision": revision.to_string(),
        });
        self.call("kv/range", &body)
    }

    /// Has etcd forget what was before a revision.
    #[cfg(test)]
    pub(super) fn compact(&mut self, revision: i64) -> Result<(), ApiError> {
        let body = json!({ "revision": revision.to_string(), "physical": true });
        self.call::<Value>("kv/compaction", &body).map(drop)
    }

    /// What happens from `revision` on.
    pub(super) fn watch(
        &mut self,
        first: &[u8],
        last: &[u8],
        revision: i64,
    ) -> Result<Watch, ApiError> {
        let request = json!({
            "key": bytes(first), "range_end": bytes(last),
            "start_revision": revision.to_string(),
        });
        let (member, body) = self.open("watch", &json!({ "create_request": request }))?;
        let reader = body.into_with_config().limit(u64::MAX).reader();
        Ok(Watch {
            member,
            reader: BufReader::new(Box::new(reader)),
        })
    }
}

/// An open watch.
pub(super) struct Watch {
    member: String,
    reader: BufReader<Box<dyn Read + Send>>,
}

impl Watch {
    /// The next message; `None` after a long silence.
    pub(super) fn next(&mut self) -> Result<Option<Watched>, ApiError> {
        #[derive(Deserialize)]
        struct Line {
            #[serde(default)]
            result: Option<Watched>,
            #[serde(default)]
            error: Value,
        }
        let mut line = Vec::new();
        let read = (&mut self.reader)
            .take(MAX_ANSWER)
            .read_until(b'\n', &mut line);
        let ended = |source| ApiError::Unreachable {
            member: self.member.clone(),
            source,
        };
        match read {
            Ok(_) if line.ends_with(b"\n") => {}
            Ok(_) => return Err(ended(io::ErrorKind::UnexpectedEof.into())),
            Err(error) if is_timeout(&error) => return Ok(None),
            Err(error) => return Err(ended(error)),
        }
        let nonsense = |reason| ApiError::Nonsense {
            member: self.member.clone(),
            reason,
        };
        let line: Line = serde_json::from_slice(&line).map_err(|e| nonsense(e.to_string()))?;
        match line.result {
            Some(watched) => Ok(Some(watched)),
            None => Err(nonsense(printable(&line.error.to_string()))),
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    let inner = error
        .get_ref()
        .and_then(|e| e.downcast_ref::<ureq::Error>());
    matches!(inner, Some(ureq::Error::Timeout(_)))
        || matches!(
            error.kind(),
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock
        )
}

fn read<T: DeserializeOwned>(member: &str, mut body: ureq::Body) -> Result<T, ApiError> {
    let nonsense = |reason: String| ApiError::Nonsense {
        member: member.to_owned(),
        reason,
    };
    let bytes = body.with_config().limit(MAX_ANSWER).read_to_vec();
    let bytes = bytes.map_err(|error| match error {
        ureq::Error::Io(source) => ApiError::Unreachable {
            member: member.to_owned(),
            source,
        },
        ureq::Error::Timeout(_) => ApiError::Unreachable {
            member: member.to_owned(),
            source: io::ErrorKind::TimedOut.into(),
        },
        other => nonsense(other.to_string()),
    })?;
    serde_json::from_slice(&bytes).map_err(|error| nonsense(error.to_string()))
}

/// What others wrote, for a log.
fn printable(text: &str) -> String {
    let keep = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.chars().take(200).map(keep).collect()
}
