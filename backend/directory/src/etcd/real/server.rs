//! An etcd of its own for each test, and a way to it that can go dead.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long etcd may take to start on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// An etcd with one member. It ends with this.
pub(super) struct Server {
    dir: tempfile::TempDir,
    pub(super) client: u16,
    peer: u16,
    tls: bool,
    child: Child,
}

impl Server {
    pub(super) fn start() -> Self {
        Self::with(false)
    }

    /// One that encrypts, and wants to see a certificate.
    pub(super) fn with_tls() -> Self {
        Self::with(true)
    }

    fn with(tls: bool) -> Self {
        let (client, peer) = (free_port(), free_port());
        let dir = tempfile::tempdir().unwrap();
        if tls {
            make_certificates(dir.path());
        }
        let child = spawn(dir.path(), client, peer, tls);
        let mut server = Self {
            dir,
            client,
            peer,
            tls,
            child,
        };
        server.wait();
        server
    }

    /// A file that `openssl` made.
    pub(super) fn pem(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.dir.path().join(name)).unwrap()
    }

    pub(super) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// The same again, on the same ports; `fresh`: with nothing that it knew.
    pub(super) fn restart(&mut self, fresh: bool) {
        if fresh {
            let data = self.dir.path().join("data");
            std::fs::remove_dir_all(data).unwrap();
        }
        self.child = spawn(self.dir.path(), self.client, self.peer, self.tls);
        self.wait();
    }

    fn wait(&mut self) {
        let begin = Instant::now();
        let health = format!("http://127.0.0.1:{}/health", self.client);
        while begin.elapsed() < PATIENCE {
            let answer = ureq::get(&health).call();
            let text = answer.and_then(|mut a| a.body_mut().read_to_string());
            if text.is_ok_and(|text| text.contains("true")) {
                return;
            }
            if self.tls && TcpStream::connect(("127.0.0.1", self.client)).is_ok() {
                return;
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("etcd ended: {status}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("etcd did not start");
    }
}

/// An authority, and what it vouches for: `server` and `client`.
fn make_certificates(dir: &std::path::Path) {
    let script = "
        set -e
        new='-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2'
        openssl req -x509 $new -keyout ca.key -out ca.pem -subj /CN=ca
        for name in server client; do
            openssl req $new -keyout $name.key -out $name.csr -subj /CN=$name
            echo 'subjectAltName=IP:127.0.0.1' > $name.ext
            openssl x509 -req -in $name.csr -CA ca.pem -CAkey ca.key -CAcreateserial \
                -days 2 -extfile $name.ext -out $name.pem
        done";
    let made = Command::new("sh")
        .args(["-c", script])
        .current_dir(dir)
        .output();
    let made = made.expect("no shell");
    let words = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "openssl: {words}");
}

fn spawn(dir: &std::path::Path, client: u16, peer: u16, tls: bool) -> Child {
    let scheme = if tls { "https" } else { "http" };
    let (client, peer) = (
        format!("{scheme}://127.0.0.1:{client}"),
        format!("http://127.0.0.1:{peer}"),
    );
    let mut command = Command::new("etcd");
    if tls {
        command.arg("--cert-file").arg(dir.join("server.pem"));
        command.arg("--key-file").arg(dir.join("server.key"));
        command.arg("--trusted-ca-file").arg(dir.join("ca.pem"));
        command.arg("--client-cert-auth");
    }
    command
        .arg("--data-dir")
        .arg(dir.join("data"))
        .args(["--name", "one"])
        .args(["--listen-client-urls", &client])
        .args(["--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer])
        .args(["--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("one={peer}")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("etcd cannot be started; `cargo xtask setup` installs etcd-server")
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Passes connections on, until they are frozen: then they stay open and are silent, as
/// those to a host that has vanished.
pub(super) struct Proxy {
    pub(super) port: u16,
    era: Arc<AtomicU32>,
}

impl Proxy {
    pub(super) fn start(to: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let era = Arc::new(AtomicU32::new(0));
        let shared = Arc::clone(&era);
        std::thread::spawn(move || {
            for from in listener.incoming().flatten() {
                let Ok(to) = TcpStream::connect(("127.0.0.1", to)) else {
                    continue;
                };
                let born = shared.load(Ordering::SeqCst);
                for (a, b) in [(&from, &to), (&to, &from)] {
                    let (a, b) = (a.try_clone().unwrap(), b.try_clone().unwrap());
                    let era = Arc::clone(&shared);
                    std::thread::spawn(move || pump(a, b, &|| era.load(Ordering::SeqCst) == born));
                }
            }
        });
        Self { port, era }
    }

    /// Those that are open now; new ones are passed on.
    pub(super) fn freeze(&self) {
        self.era.fetch_add(1, Ordering::SeqCst);
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream, alive: &dyn Fn() -> bool) {
    let mut buffer = [0; 4096];
    while let Ok(n) = from.read(&mut buffer) {
        if n == 0 {
            break;
        }
        if alive() && to.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    if alive() {
        let _ = to.shutdown(Shutdown::Write);
    }
}
