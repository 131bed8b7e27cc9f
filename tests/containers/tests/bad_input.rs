//! What a broken or hostile runtime says, and what a hostile image holds.

use anyhow::Context as _;
use masq_admin::{Answer, Registration, Request};
use masq_container_tests::{Bundle, Bundles, PodNet, RootFs, Runtime, Site, policy, usable};
use masq_e2e::{Running, spawn};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const SUBNET: &str = "10.8.1.0/24";

/// `masq hook STAGE` with this on its standard input.
fn hook(site: &Site, stage: &str, state: &[u8]) -> anyhow::Result<Output> {
    let mut child = site
        .masq()
        .args(["hook", stage, "--device", "blue"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    // It may have stopped reading.
    let _ = child.stdin.take().context("no pipe")?.write_all(state);
    Ok(child.wait_with_output()?)
}

fn said(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

/// A process with namespaces of its own, as a container's init has them.
fn pretender() -> anyhow::Result<(Running, i32)> {
    let mut command = Command::new("unshare");
    command.args(["-mpn", "--fork", "--kill-child", "sh", "-c"]);
    command.arg("echo up; exec sleep 1000");
    let mut running = spawn(command)?;
    masq_e2e::wait_for_words(&mut running, "up")?;
    let children = format!("/proc/{0}/task/{0}/children", running.pid());
    let child = std::fs::read_to_string(children)?;
    Ok((running, child.trim().parse()?))
}

#[test]
fn a_state_that_is_none_is_refused_and_registers_nothing() -> anyhow::Result<()> {
    if !usable(Runtime::Runc) {
        return Ok(());
    }
    let site = Site::start(&policy(SUBNET))?;
    let before = site.footprint()?;
    let dir = tempfile::tempdir()?;
    let bundle = dir.path().display();
    let mut states: Vec<Vec<u8>> = [
        "",
        "{",
        "null",
        "[]",
        "{}",
        "\"x\"",
        r#"{"ociVersion":"1.0.2","id":"x","status":"creating","pid":2,"bundle":"/nowhere"}"#,
        r#"{"ociVersion":"1.0.2","id":"../x","status":"creating","pid":2,"bundle":"/tmp"}"#,
        r#"{"ociVersion":"1.0.2","id":"","status":"creating","pid":2,"bundle":"/tmp"}"#,
        r#"{"ociVersion":"1.0.2","id":"x","status":"creating","pid":-1,"bundle":"/tmp"}"#,
        r#"{"ociVersion":"1.0.2","id":"x","status":"creating","pid":99999999999,"bundle":"/tmp"}"#,
        r#"{"ociVersion":"1.0.2","id":"x","status":"creating","pid":1,"bundle":"relative"}"#,
        r#"{"ociVersion":"1.0.2","id":"x","status":"creating","pid":"1","bundle":"/tmp"}"#,
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec();
    states.push(format!(r#"{{"id":"x","pid":2,"bundle":"{bundle}"}}"#).into());
    states.push(vec![0xff; 4096]);
    states.push(b"[".repeat(1 << 20));
    states.push(b" ".repeat(64 << 20));
    for state in &states {
        let head = String::from_utf8_lossy(&state[..state.len().min(120)]).into_owned();
        let since = Instant::now();
        let out = hook(&site, "createRuntime", state)?;
        assert_eq!(out.status.code(), Some(1), "{head}: {}", said(&out));
        assert!(said(&out).len() > 20, "{head}: {}", said(&out));
        assert!(!said(&out).contains("panicked"), "{head}: {}", said(&out));
        assert!(since.elapsed() < Duration::from_secs(10), "{head}");
        // What is gone already is no failure at the end; what is no state may be one.
        let out = hook(&site, "poststop", state)?;
        assert!(!said(&out).contains("panicked"), "{head}: {}", said(&out));
    }
    site.wait_until_back_to(&before)
}

#[test]
fn a_config_that_is_none_is_refused() -> anyhow::Result<()> {
    if !usable(Runtime::Runc) {
        return Ok(());
    }
    let site = Site::start(&policy(SUBNET))?;
    let before = site.footprint()?;
    let (_init, pid) = pretender()?;
    let dir = tempfile::tempdir()?;
    let state = format!(
        r#"{{"ociVersion":"1.0.2","id":"x","status":"creating","pid":{pid},"bundle":"{}"}}"#,
        dir.path().display()
    );
    let config = dir.path().join("config.json");
    let refused = |what: &str| -> anyhow::Result<()> {
        let out = hook(&site, "createRuntime", state.as_bytes())?;
        assert_eq!(out.status.code(), Some(1), "{what}: {}", said(&out));
        assert!(!said(&out).contains("panicked"), "{what}: {}", said(&out));
        assert!(site.containers()?.is_empty(), "{what}");
        Ok(())
    };
    refused("no config.json")?;
    for text in ["", "[]", "{}", r#"{"root":{}}"#, r#"{"root":{"path":5}}"#] {
        std::fs::write(&config, text)?;
        refused(text)?;
    }
    std::fs::write(&config, r#"{"root":{"path":"/nowhere/at/all"}}"#)?;
    refused("a root that is missing")?;
    std::fs::remove_file(&config)?;
    let fifo = Command::new("mkfifo").arg(&config).status()?;
    assert!(fifo.success());
    refused("a FIFO")?;
    site.wait_until_back_to(&before)
}

#[test]
fn annotations_with_path_characters_are_refused_and_make_no_file() -> anyhow::Result<()> {
    if !usable(Runtime::Runc) {
        return Ok(());
    }
    let runc = Bundles::runc()?;
    let net = PodNet::with_address("10.8.1.2/24")?;
    let site = Site::start(&policy(SUBNET))?;
    let before = site.footprint()?;
    let image = RootFs::busybox()?;
    let plain = Bundle::of(&image)
        .edits(site.devices().edits("blue")?)
        .inside(&net);
    for value in [
        "../blue",
        "/",
        "..",
        "blue/pod",
        "blue\n",
        "",
        "b\u{0}lue",
        "pod.x",
    ] {
        for name in ["dev.masq/tenant", "dev.masq/endpoint", "dev.masq/library"] {
            let error = match runc.start(&plain.clone().annotation(name, value)) {
                Ok(_) => anyhow::bail!("{name}={value:?} started"),
                Err(error) => format!("{error:#}"),
            };
            assert!(error.contains("running hook"), "{error}");
            assert!(!error.contains("panicked"), "{error}");
        }
    }
    site.wait_until_back_to(&before)
}

/// Starts blue from a hostile image; the host's directory `outside`, which the script
/// knows as $O, must stay as it is.
fn hostile(script: &str, refusals: [Option<&str>; 2]) -> anyhow::Result<()> {
    let runc = Bundles::runc()?;
    let net = PodNet::with_address("10.8.1.1/24")?;
    let site = Site::start(&policy(SUBNET))?;
    let edits = site.devices().edits("blue")?;
    let bundle = |image: &RootFs| Bundle::of(image).edits(edits).inside(&net);
    let outside = tempfile::Builder::new()
        .prefix("masqt-outside-")
        .tempdir_in("/var/tmp")?;
    let at = outside.path();
    std::fs::write(at.join("file"), "the host's")?;
    std::fs::create_dir(at.join("dir"))?;
    let script = format!("O={}\nL=usr/lib/x86_64-linux-gnu\n{script}", at.display());
    for (image, refusal) in [RootFs::debian()?, RootFs::busybox()?]
        .into_iter()
        .zip(refusals)
    {
        let before = site.footprint()?;
        let since = Instant::now();
        let result = runc.start(
            &bundle(&image).changed_by(&format!("mkdir -p usr/lib/x86_64-linux-gnu etc\n{script}")),
        );
        assert!(since.elapsed() < Duration::from_secs(20), "{script}");
        untouched(at);
        match (result, refusal) {
            (Ok(container), None) => {
                // Its own words do not matter, nor whether it finds a device.
                let _ = container.run("ibv_devinfo");
                untouched(at);
                container.remove()?;
            }
            (Err(error), Some(words)) => {
                let text = format!("{error:#}");
                assert!(!text.contains("panicked"), "{text}");
                assert!(text.contains(words), "{text}");
            }
            (Ok(_), Some(_)) => anyhow::bail!("{} started", image.image()),
            (Err(error), None) => return Err(error),
        }
        untouched(at);
        site.wait_until_back_to(&before)?;
        // And an honest one starts.
        let honest = runc.start(&bundle(&image))?;
        honest.run("ibv_devinfo")?.success()?;
        honest.remove()?;
    }
    Ok(())
}

fn untouched(outside: &Path) {
    let text = std::fs::read_to_string(outside.join("file")).expect("the file is there");
    assert_eq!(text, "the host's");
    let list = |dir: &Path| std::fs::read_dir(dir).expect("it is there").count();
    assert_eq!(
        list(outside),
        2,
        "something was made in the host's directory"
    );
    assert_eq!(
        list(&outside.join("dir")),
        0,
        "something was made in the host's directory"
    );
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("procfs");
    let here = outside.to_string_lossy();
    assert!(
        !mounts.contains(&*here),
        "something was mounted on the host"
    );
}

macro_rules! hostile {
    ($($name:ident: $script:literal, $refusal:expr;)*) => { $(
        #[test]
        fn $name() -> anyhow::Result<()> {
            if !usable(Runtime::Runc) {
                return Ok(());
            }
            hostile($script, $refusal)
        }
    )* };
}

/// What the error says, if the image is refused: Debian's, then the one without libc.
const STARTS: [Option<&str>; 2] = [None; 2];
const NO_FILE: [Option<&str>; 2] = [Some("that is not a regular file"), None];

hostile! {
    a_link_in_place_of_run_does_not_lead_out_of_the_image:
        "rm -rf run; ln -s $O/dir run", [Some("/run"); 2];
    a_library_that_is_a_link_does_not_lead_out_of_the_image:
        "rm -f $L/libibverbs.so.1* $L/librdmacm.so.1*
         ln -s $O/file $L/libibverbs.so.1
         ln -s ../../../../../../../../../../..$O/file $L/librdmacm.so.1", NO_FILE;
    a_link_in_place_of_a_directory_that_is_searched_does_not_lead_out_of_the_image:
        "rm -rf usr/local; ln -s $O/dir usr/local; rm -rf run; ln -s / run
         mkdir -p etc/ld.so.conf.d; echo $O/dir > etc/ld.so.conf.d/a.conf
         echo ../../../../../../../../..$O/dir >> etc/ld.so.conf.d/a.conf", STARTS;
    a_library_that_is_a_device_is_refused_by_its_name:
        "rm -f $L/libibverbs.so.1*; mknod $L/libibverbs.so.1 c 1 5
         mknod $L/libibverbs.so.1.2 b 7 0", NO_FILE;
    a_library_that_is_a_pipe_is_refused_and_blocks_nobody:
        "rm -f $L/libibverbs.so.1*; mkfifo $L/libibverbs.so.1 $L/librdmacm.so.1x", NO_FILE;
    settings_of_the_loader_that_are_a_pipe_or_in_a_circle_block_nobody:
        "mkdir -p etc/ld.so.conf.d; rm -f etc/ld.so.conf etc/ld.so.conf.d/*
         mkfifo etc/ld.so.conf.d/pipe.conf
         printf 'include /etc/ld.so.conf\ninclude ld.so.conf.d/*.conf\n' > etc/ld.so.conf", STARTS;
    a_library_that_is_a_link_to_itself_is_refused:
        "rm -f $L/libibverbs.so.1*; ln -s libibverbs.so.1 $L/libibverbs.so.1", [Some("symbolic link"), None];
    links_in_place_of_run_that_are_a_circle_are_refused:
        "rm -rf run; ln -s run2 run; ln -s run run2", [Some("symbolic link"); 2];
    a_library_of_a_thousand_names_is_bounded:
        "echo x > $L/libibverbs.so.1.0; i=0
         while [ $i -lt 1000 ]; do ln $L/libibverbs.so.1.0 $L/libibverbs.so.1.0.$i; i=$((i+1)); done",
        STARTS;
    a_file_where_a_directory_belongs_is_refused_by_its_name:
        "rm -rf run; echo x > run", [Some("/run"); 2];
}

#[test]
fn ten_thousand_registrations_are_bounded_and_others_are_served() -> anyhow::Result<()> {
    if !usable(Runtime::Runc) {
        return Ok(());
    }
    let runc = Bundles::runc()?;
    let net = PodNet::with_address("10.8.1.9/24")?;
    let site = Site::start(&policy(SUBNET))?;
    let red = Bundle::of(&RootFs::debian()?)
        .edits(site.devices().edits("red")?)
        .inside(&net);
    let before = site.footprint()?;
    let (init, pid) = pretender()?;
    let mut refusals = 0;
    let mut reason = String::new();
    for n in 0..10_000 {
        let request = Request::Register(Registration {
            container: format!("looping-{n}"),
            pid,
            tenant: Some("blue".to_owned()),
            ..Registration::default()
        });
        match masq_admin::call(&site.run_dir(), &request) {
            Ok(Answer::Registered(_)) => {}
            Ok(other) => anyhow::bail!("{other:?}"),
            Err(error) => {
                refusals += 1;
                reason = error.to_string();
            }
        }
        if n % 4000 == 3999 {
            let container = runc.start(&red)?;
            container.run("ibv_devinfo")?.success()?;
            container.remove()?;
        }
    }
    let taken = site.containers()?.len();
    assert!(
        taken + refusals == 10_000,
        "{taken} taken, {refusals} refused"
    );
    assert!(taken <= 4096, "{taken} taken");
    assert!(reason.contains("containers"), "{reason}");
    let held = site.footprint()?.resident() - before.resident();
    assert!(held < 64 << 10, "{taken} containers hold {held} KiB");
    drop(init);
    site.wait_until_back_to(&before)
}
