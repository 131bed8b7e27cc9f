//! Programs that meet by rdma_cm: a server on a virtual address, and its
//! client. No host port is involved, so masqd is asked whether one listens.

use crate::host::Host;
use crate::pair::{PairOutput, logs, tail};
use crate::process::{Finished, Running};
use anyhow::{Context as _, anyhow, bail};
use std::time::{Duration, Instant};

const LISTENS: Duration = Duration::from_secs(20);

/// One program as server at an endpoint, one as client at another.
#[derive(Clone, Debug)]
pub struct Meeting {
    server: Side,
    client: Side,
    limit: Duration,
    stays: bool,
    joins: bool,
}

#[derive(Clone, Debug)]
struct Side {
    endpoint: String,
    words: Vec<String>,
}

impl Side {
    fn new(endpoint: &str, line: &str) -> Self {
        Self {
            endpoint: endpoint.to_owned(),
            words: line.split_ascii_whitespace().map(str::to_owned).collect(),
        }
    }

    fn start(&self, host: &Host) -> anyhow::Result<Running> {
        let (program, args) = self.words.split_first().context("no program")?;
        host.start_as(&self.endpoint, program, args)
    }
}

impl Meeting {
    /// These command lines, split at blanks, as blue/a and blue/b; four minutes at most.
    pub fn new(server: &str, client: &str) -> Self {
        Self {
            server: Side::new("blue/a", server),
            client: Side::new("blue/b", client),
            limit: Duration::from_secs(240),
            stays: false,
            joins: false,
        }
    }

    /// Other endpoints.
    #[must_use]
    pub fn between(mut self, server: &str, client: &str) -> Self {
        server.clone_into(&mut self.server.endpoint);
        client.clone_into(&mut self.client.endpoint);
        self
    }

    /// Another limit for each side.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// The server serves for ever: it must still run when the client has
    /// ended, and is killed then.
    #[must_use]
    pub fn server_stays(mut self) -> Self {
        self.stays = true;
        self
    }

    /// The server joins a group, and is ready when it has a queue pair.
    #[must_use]
    pub fn server_joins(mut self) -> Self {
        self.joins = true;
        self
    }

    /// Runs both to their ends; both must succeed.
    ///
    /// # Errors
    /// One failed or hung; the error holds both outputs and masqd's log.
    pub fn run(&self, host: &Host) -> anyhow::Result<PairOutput> {
        self.run_across(host, host)
    }

    /// The same with the server on one host and the client on another.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn run_across(&self, server: &Host, client: &Host) -> anyhow::Result<PairOutput> {
        let done = self.outcome_across(server, client)?;
        let server_ok = self.stays || done.server.status.success();
        if server_ok && done.client.status.success() {
            return Ok(done);
        }
        Err(anyhow!(
            "client {}server {}{}",
            done.client,
            done.server,
            logs(server, client)
        ))
    }

    /// Runs both to their ends, however they end. A server whose client failed
    /// is killed.
    ///
    /// # Errors
    /// A side hung, or could not be started, or a server that should stay did
    /// not.
    pub fn outcome(&self, host: &Host) -> anyhow::Result<PairOutput> {
        self.outcome_across(host, host)
    }

    /// The same between two hosts, as [`Self::run_across`].
    ///
    /// # Errors
    /// As [`Self::outcome`].
    pub fn outcome_across(
        &self,
        server_host: &Host,
        client_host: &Host,
    ) -> anyhow::Result<PairOutput> {
        let mut server = self.start_server(server_host)?;
        let client = self.client.start(client_host)?.wait(self.limit);
        let client = client.with_context(|| {
            let logs = logs(server_host, client_host);
            format!("server:\n{}{logs}", server.output())
        })?;
        if self.stays && !server.is_running() {
            bail!("the server did not stay:\n{}", server.output());
        }
        if self.stays || !client.status.success() {
            std::thread::sleep(Duration::from_millis(200));
            server.signal(rustix::process::Signal::KILL);
        }
        let server = server
            .wait(self.limit)
            .with_context(|| format!("client {client}{}", logs(server_host, client_host)))?;
        Ok(PairOutput { server, client })
    }

    /// The server alone, once it listens.
    ///
    /// # Errors
    /// It does not.
    pub fn start_server(&self, host: &Host) -> anyhow::Result<Running> {
        let endpoint = &self.server.endpoint;
        let before = listeners(host, endpoint)?;
        let mut server = self.server.start(host)?;
        if self.joins {
            wait_until(host, endpoint, &mut server, || {
                let (sessions, _) = host.endpoint(endpoint)?;
                Ok(sessions
                    .iter()
                    .any(|session| !session.queue_pairs.is_empty()))
            })?;
        } else {
            wait_for_listeners(host, endpoint, before + 1, &mut server)?;
        }
        Ok(server)
    }

    /// The client alone, to its end.
    ///
    /// # Errors
    /// It hung or could not be started.
    pub fn run_client(&self, host: &Host) -> anyhow::Result<Finished> {
        self.client.start(host)?.wait(self.limit)
    }

    /// The client alone, running.
    ///
    /// # Errors
    /// It could not be started.
    pub fn start_client(&self, host: &Host) -> anyhow::Result<Running> {
        self.client.start(host)
    }
}

/// mckey as member of a group at blue/a, and at blue/b as its sender, with further arguments.
pub fn mckey(group: &str, more: &str) -> Meeting {
    let common = format!("mckey -m {group} -C 50 -S 512");
    Meeting::new(
        &format!("{common} -b 10.0.0.1"),
        &format!("{common} -b 10.0.0.2 -s {more}"),
    )
    .server_joins()
}

/// How many rdma_cm ids of the endpoint listen.
///
/// # Errors
/// masqd does not answer.
pub fn listeners(host: &Host, endpoint: &str) -> anyhow::Result<usize> {
    let (sessions, _) = host.endpoint(endpoint)?;
    let ids = sessions.iter().flat_map(|session| &session.cm_ids);
    Ok(ids.filter(|id| id.state == "listening").count())
}

/// Waits until so many rdma_cm ids of the endpoint listen.
///
/// # Errors
/// They do not within twenty seconds, or `running` ended.
pub fn wait_for_listeners(
    host: &Host,
    endpoint: &str,
    count: usize,
    running: &mut Running,
) -> anyhow::Result<()> {
    wait_until(host, endpoint, running, || {
        Ok(listeners(host, endpoint)? >= count)
    })
}

fn wait_until(
    host: &Host,
    endpoint: &str,
    running: &mut Running,
    ready: impl Fn() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let end = Instant::now() + LISTENS;
    while !ready()? {
        if !running.is_running() || Instant::now() > end {
            bail!(
                "the server at {endpoint} does not get ready:\n{}masqd:\n{}",
                running.output(),
                tail(&host.log())
            );
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Waits until `running` printed `word`.
///
/// # Errors
/// It did not within twenty seconds, or ended.
pub fn wait_for_words(running: &mut Running, word: &str) -> anyhow::Result<()> {
    let end = Instant::now() + LISTENS;
    while !running.output().contains(word) {
        if !running.is_running() || Instant::now() > end {
            // What it printed last may have come between the two looks.
            if running.output().contains(word) {
                return Ok(());
            }
            bail!("it does not say `{word}`:\n{}", running.output());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
