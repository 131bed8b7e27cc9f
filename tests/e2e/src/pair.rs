//! A server and a client that meet over loopback.

use crate::host::Host;
use crate::ports::{free_port, wait_for_listener_in};
use crate::process::{Finished, Running};
use anyhow::{Context as _, anyhow};
use std::net::IpAddr;
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
        done(self.outcome(host)?, host, host)
    }

    /// The same with the server on one host, which has this address, and the client on
    /// another.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn run_across(
        &self,
        server: &Host,
        address: IpAddr,
        client: &Host,
    ) -> anyhow::Result<PairOutput> {
        let out = self.outcome_across(server, address, client)?;
        done(out, server, client)
    }

    /// Runs both to their ends, however they end. A side whose peer failed is
    /// given a second to notice.
    ///
    /// # Errors
    /// A side hung although the other did not fail, or could not be started.
    pub fn outcome(&self, host: &Host) -> anyhow::Result<PairOutput> {
        self.outcome_across(host, [127, 0, 0, 1].into(), host)
    }

    /// The same between two hosts, as [`Self::run_across`].
    ///
    /// # Errors
    /// As [`Self::outcome`].
    pub fn outcome_across(
        &self,
        server_host: &Host,
        address: IpAddr,
        client_host: &Host,
    ) -> anyhow::Result<PairOutput> {
        let (mut server, port) = self.start_server(server_host)?;
        let client = self
            .start_client(client_host, address, port)?
            .wait(self.limit)
            .with_context(|| {
                let logs = logs(server_host, client_host);
                format!("server:\n{}{logs}", server.output())
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
            .with_context(|| format!("client {client}{}", logs(server_host, client_host)))?;
        Ok(PairOutput { server, client })
    }

    /// The server alone, once it listens, and its port.
    ///
    /// # Errors
    /// It does not.
    pub fn start_server(&self, host: &Host) -> anyhow::Result<(Running, u16)> {
        let port = free_port()?;
        let args = self.args_at(port);
        let mut server = host.start_as(&self.server, &self.program, args)?;
        let limit = Duration::from_secs(20);
        let net = host.network_tables();
        let listening = wait_for_listener_in(&net, port, limit, || server.is_running());
        listening.with_context(|| {
            let log = tail(&host.log());
            format!("server:\n{}masqd:\n{log}", server.output())
        })?;
        Ok((server, port))
    }

    /// The client alone, running; its server is there.
    ///
    /// # Errors
    /// It could not be started.
    pub fn start_client(&self, host: &Host, address: IpAddr, port: u16) -> anyhow::Result<Running> {
        let mut args = self.args_at(port);
        args.push(address.to_string());
        host.start_as(&self.client, &self.program, args)
    }

    fn args_at(&self, port: u16) -> Vec<String> {
        let mut args = self.args.clone();
        args.extend(["-p".to_owned(), port.to_string()]);
        args
    }
}

/// What both did, if both succeeded.
fn done(out: PairOutput, server: &Host, client: &Host) -> anyhow::Result<PairOutput> {
    let ok = out.server.status.success() && out.client.status.success();
    ok.then(|| out.clone()).ok_or_else(|| {
        let logs = logs(server, client);
        anyhow!("client {}server {}{logs}", out.client, out.server)
    })
}

/// The ends of the logs of both hosts, which may be one.
pub(crate) fn logs(server: &Host, client: &Host) -> String {
    let mut text = format!("masqd:\n{}{}", tail(&server.log()), packets(server));
    if server.pid() != client.pid() {
        text += "\nmasqd of the client:\n";
        text += &tail(&client.log());
        text += &packets(client);
    }
    text
}

fn packets(host: &Host) -> String {
    let hosts = host.overview().ok().and_then(|overview| overview.hosts);
    hosts.map_or_else(String::new, |hosts| format!("\n{:?}", hosts.wire))
}

/// The last lines of a log.
pub(crate) fn tail(log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    let from = lines.len().saturating_sub(30);
    lines.get(from..).unwrap_or_default().join("\n")
}
