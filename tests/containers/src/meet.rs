//! Two programs that meet, each in a container of its own.

use crate::container::Container;
use anyhow::{Context as _, bail};
use masq_e2e::{Finished, Host, Running, wait_for_listeners};
use std::time::Duration;

/// Where the programs of rdma-core and perftest listen unless told otherwise.
const PORT: u16 = 18515;
const LIMIT: Duration = Duration::from_secs(60);

/// A server's command line and its client's, split at blanks; `{}` is the server's
/// address.
#[derive(Clone, Debug)]
pub struct Meet {
    server: String,
    client: String,
    by_rdma_cm: bool,
}

/// What both printed.
#[derive(Clone, Debug)]
pub struct Met {
    /// The server.
    pub server: Finished,
    /// The client.
    pub client: Finished,
}

impl Meet {
    /// `ibv_rc_pingpong`, which checks each byte.
    pub fn pingpong() -> Self {
        Self::over_tcp("ibv_rc_pingpong -g 3 -c -p 18515")
    }

    /// Programs that first exchange their addresses over TCP; the client's command line is
    /// the server's and the address.
    pub fn over_tcp(line: &str) -> Self {
        Self {
            server: line.to_owned(),
            client: format!("{line} {{}}"),
            by_rdma_cm: false,
        }
    }

    /// Programs that meet by rdma_cm.
    pub fn by_rdma_cm(server: &str, client: &str) -> Self {
        Self {
            server: server.to_owned(),
            client: client.to_owned(),
            by_rdma_cm: true,
        }
    }

    /// Starts the server, whose masqd is `host`, and waits until it listens.
    ///
    /// # Errors
    /// It does not.
    pub fn start_server(&self, host: &Host, server: &Container) -> anyhow::Result<Running> {
        let address = server.address()?.to_string();
        let mut running = server.start(&self.server.replace("{}", &address))?;
        if self.by_rdma_cm {
            let endpoint = server.report(host)?.endpoint;
            wait_for_listeners(host, &endpoint, 1, &mut running)?;
        } else {
            server.wait_for_listener(PORT, &mut running)?;
        }
        Ok(running)
    }

    /// Runs both to their ends, however they end.
    ///
    /// # Errors
    /// One hangs or cannot be started.
    pub fn outcome(
        &self,
        host: &Host,
        server: &Container,
        client: &Container,
    ) -> anyhow::Result<Met> {
        let address = server.address()?.to_string();
        let running = self.start_server(host, server)?;
        let met = client
            .start(&self.client.replace("{}", &address))?
            .wait(LIMIT)
            .with_context(|| format!("server:\n{}masqd:\n{}", running.output(), host.log()))?;
        if !met.status.success() {
            // A server whose client is gone may wait for ever; inside it ends with the
            // container.
            std::thread::sleep(Duration::from_millis(500));
            running.signal(rustix::process::Signal::KILL);
        }
        let server = running
            .wait(LIMIT)
            .with_context(|| format!("client {met}masqd:\n{}", host.log()))?;
        Ok(Met {
            server,
            client: met,
        })
    }

    /// Runs both to their ends; both must succeed.
    ///
    /// # Errors
    /// One failed or hung; the error holds both outputs and masqd's log.
    pub fn run(&self, host: &Host, server: &Container, client: &Container) -> anyhow::Result<Met> {
        let met = self.outcome(host, server, client)?;
        if met.server.status.success() && met.client.status.success() {
            return Ok(met);
        }
        bail!(
            "client {}server {}masqd:\n{}",
            met.client,
            met.server,
            host.log()
        )
    }
}
