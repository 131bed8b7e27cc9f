//! A server and a client that meet over loopback.

use crate::host::Host;
use crate::ports::{free_port, wait_for_listener};
use crate::process::Finished;
use anyhow::{Context as _, anyhow};
use std::time::Duration;

/// Two runs of one program, as pingpongs and perftest want them: first
/// without, then with the server's address.
#[derive(Clone, Debug)]
pub struct Pair {
    program: String,
    args: Vec<String>,
    server: String,
    client: String,
    limit: Duration,
}

/// How both ended.
#[derive(Clone, Debug)]
pub struct PairOutput {
    /// The one that waited.
    pub server: Finished,
    /// The one that connected.
    pub client: Finished,
}

impl Pair {
    /// `program` as blue/a (server) and blue/b (client), 60 s at most.
    pub fn new(program: &str) -> Self {
        Self {
            program: program.to_owned(),
            args: Vec::new(),
            server: "blue/a".to_owned(),
            client: "blue/b".to_owned(),
            limit: Duration::from_secs(60),
        }
    }

    /// Arguments of both sides; the port is added.
    #[must_use]
    pub fn args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Other endpoints.
    #[must_use]
    pub fn between(mut self, server: &str, client: &str) -> Self {
        server.clone_into(&mut self.server);
        client.clone_into(&mut self.client);
        self
    }

    /// Another limit for the whole run.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Runs both to their ends; both must succeed.
    ///
    /// # Errors
    /// One failed or hung; the error holds both outputs and masqd's log.
    pub fn run(&self, host: &Host) -> anyhow::Result<PairOutput> {
        let done = self.outcome(host)?;
        let ok = done.server.status.success() && done.client.status.success();
        ok.then(|| done.clone()).ok_or_else(|| {
            anyhow!(
                "client {}server {}masqd:\n{}",
                done.client,
                done.server,
                tail(&host.log())
            )
        })
    }

    /// Runs both to their ends, however they end. A side whose peer failed is
    /// given a second to notice.
    ///
    /// # Errors
    /// A side hung although the other did not fail, or could not be started.
    pub fn outcome(&self, host: &Host) -> anyhow::Result<PairOutput> {
        let port = free_port()?.to_string();
        let mut args = self.args.clone();
        args.extend(["-p".to_owned(), port.clone()]);
        let mut server = host.start_as(&self.server, &self.program, &args)?;
        let listening = wait_for_listener(port.parse()?, Duration::from_secs(20), || {
            server.is_running()
        });
        if let Err(error) = listening {
            let output = server.output();
            return Err(error.context(format!("server:\n{output}masqd:\n{}", tail(&host.log()))));
        }
        args.push("127.0.0.1".to_owned());
        let client = host
            .start_as(&self.client, &self.program, &args)?
            .wait(self.limit)
            .with_context(|| {
                format!("server:\n{}masqd:\n{}", server.output(), tail(&host.log()))
            })?;
        if !client.status.success() {
            // A server whose client is gone may wait for ever.
            std::thread::sleep(Duration::from_millis(200));
            if server.is_running() {
                std::thread::sleep(Duration::from_millis(800));
                server.signal(rustix::process::Signal::TERM);
            }
        }
        let server = server
            .wait(self.limit)
            .with_context(|| format!("client {client}masqd:\n{}", tail(&host.log())))?;
        Ok(PairOutput { server, client })
    }
}

/// The last lines of a log.
pub(crate) fn tail(log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    let from = lines.len().saturating_sub(30);
    lines.get(from..).unwrap_or_default().join("\n")
}
