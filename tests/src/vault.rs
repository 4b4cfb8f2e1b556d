//! A vault in one line.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, ErrorKind},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, geteuid},
};
use secrecy::SecretString;
use tempfile::TempDir;
use vault_client::{ClientBuilder, VaultClient};

use crate::{
    Answer, Minter, Module, Recording,
    ctl::to_the_end,
    exchange,
    module::{TOKEN_LABEL, WholeToken},
    not_run, until,
};

const PATIENCE: Duration = Duration::from_mins(1);

/// A running vault, or one that was stopped and can be started again. Its files go when it is dropped.
pub struct Vault {
    dir: TempDir,
    child: Option<Child>,
    user: Option<String>,
    recording: Option<Recording>,
    banner: Vec<String>,
}

impl Vault {
    /// A vault as `vaultd dev` makes it.
    pub fn start() -> Self {
        Self::start_as(|_| None)
    }

    fn start_as(recording: impl FnOnce(&Path) -> Option<Recording>) -> Self {
        // Short, because a socket's path may have 107 bytes only.
        let dir = tempfile::Builder::new().prefix("vt").tempdir_in("/tmp").unwrap();
        let recording = recording(dir.path());
        let mut vault = Self { dir, child: None, user: None, recording, banner: Vec::new() };
        let (at, module) = (vault.path(""), Module::of_this_run());
        let at = at.to_str().unwrap();
        if module == Module::Softhsm2 {
            vault.spawn(&["dev", "--dir", at]);
        } else {
            let hsm = module.make_token(vault.dir.path());
            vault.spawn(&["dev", "--dir", at, "--hsm", hsm.to_str().unwrap()]);
        }
        vault
    }

    /// A vault of which is recorded what it writes to its store and its audit log, until [`Vault::recorded`].
    pub fn start_recorded() -> Self {
        Self::start_as(|dir| Some(Recording::of(vec![dir.join("store"), dir.join("audit")])))
    }

    /// The record that is being written.
    pub fn recording(&self) -> &Recording {
        self.recording.as_ref().expect("recorded")
    }

    /// The record, to which nothing is added from the next start on.
    pub fn recorded(&mut self) -> Recording {
        self.recording.take().expect("recorded")
    }

    /// A vault whose configuration `change` has changed.
    pub fn start_with(change: impl FnOnce(String) -> String) -> Self {
        let mut vault = Self::start();
        assert!(vault.stop().success());
        vault.change_config(change);
        vault.restart();
        vault
    }

    /// The file `name` of the vault's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The API's socket.
    pub fn socket(&self) -> PathBuf {
        self.path("vaultd.sock")
    }

    /// The daemon's process id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("running").id()
    }

    /// Everything the daemon has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// The JWT with every scope.
    pub fn jwt(&self) -> String {
        fs::read_to_string(self.path("token.jwt")).unwrap().trim().to_owned()
    }

    /// A maker of JWTs.
    pub fn minter(&self) -> Minter {
        Minter::new(&fs::read(self.path("issuer.key.pem")).unwrap(), &self.jwt())
    }

    /// A client that may do everything.
    pub fn client(&self) -> VaultClient {
        self.client_builder().build().unwrap()
    }

    /// The beginnings of such a client.
    pub fn client_builder(&self) -> ClientBuilder {
        VaultClient::builder(self.socket()).token(SecretString::from(self.jwt()))
    }

    /// Sends a request with every scope and the JSON `body`.
    pub fn request(&self, method: &str, path: &str, body: &str) -> Answer {
        self.request_as(&self.jwt(), method, path, body)
    }

    /// Sends a request with every scope to the admin socket.
    pub fn admin(&self, method: &str, path: &str) -> Answer {
        self.admin_as(&self.jwt(), method, path, "")
    }

    /// Sends a request with the given JWT and the JSON `body` to the admin socket.
    pub fn admin_as(&self, jwt: &str, method: &str, path: &str, body: &str) -> Answer {
        send(&self.path("admin.sock"), jwt, method, path, body)
    }

    /// Sends a request with the given JWT and the JSON `body`.
    pub fn request_as(&self, jwt: &str, method: &str, path: &str, body: &str) -> Answer {
        send(&self.socket(), jwt, method, path, body)
    }

    /// Changes the configuration of a vault that is stopped.
    pub fn change_config(&self, change: impl FnOnce(String) -> String) {
        let path = self.path("vaultd.toml");
        let text = change(fs::read_to_string(&path).unwrap());
        fs::write(&path, text).unwrap();
    }

    /// Whether [`Vault::hand_over`] is possible; if not, says why.
    pub fn can_be_handed_over() -> bool {
        let can = geteuid().is_root() && Module::of_this_run() == Module::Softhsm2;
        if !can {
            not_run("only root can become another user, and only SoftHSM2's token can be given away");
        }
        can
    }

    /// Gives a vault that is stopped to `user`, whom it becomes from now on when it is started as root.
    pub fn hand_over(&mut self, user: &str) {
        let given = Command::new("chown").args(["-R", user]).arg(self.dir.path()).status();
        assert!(given.unwrap().success());
        self.user = Some(user.to_owned());
    }

    /// Starts the vault again from its configuration.
    pub fn restart(&mut self) {
        assert!(self.child.is_none(), "it is still running");
        let arguments = self.serve_arguments();
        self.spawn(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    }

    /// Starts the vault again as a copy of `vaultd`, not as root's, by a program with arguments that becomes it.
    pub fn restart_through(&mut self, program: &[&str]) {
        let copy = self.copy_of_vaultd();
        let mut command = Command::new(program[0]);
        command.args(&program[1..]).arg(copy).arg("serve").arg("--config").arg(self.path("vaultd.toml"));
        let log = self.open_log();
        self.spawn_command(command, log);
    }

    /// `vaultd`, copied to where any user may run it. By another program: a child of this one that another test starts
    /// meanwhile would hold the copy open for writing, and it could not be run.
    pub fn copy_of_vaultd(&self) -> PathBuf {
        let copy = self.path("vaultd");
        assert!(Command::new("cp").arg(vaultd()).arg(&copy).status().unwrap().success());
        copy
    }

    /// Runs the vault to its end, which comes at once.
    pub fn run_to_its_end(&self) -> Output {
        run(&self.serve_arguments().iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn serve_arguments(&self) -> Vec<String> {
        let config = self.path("vaultd.toml").to_str().unwrap().to_owned();
        let mut arguments = vec!["serve".to_owned(), "--config".to_owned(), config];
        arguments.extend(self.user.iter().flat_map(|user| ["--user".to_owned(), user.clone()]));
        arguments
    }

    /// Starts the vault again with its log going to `log`.
    pub fn restart_with_log(&mut self, log: File) {
        assert!(self.child.is_none(), "it is still running");
        let arguments = self.serve_arguments();
        self.spawn_with_log(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), log);
    }

    /// Starts the vault again and kills it when `wait` returns, whether it got ready or not; returns what that returned.
    pub fn start_and_kill<T>(&self, wait: impl FnOnce() -> T) -> T {
        let token = WholeToken::read(self.dir.path());
        let log = self.open_log();
        let config = self.path("vaultd.toml");
        let mut child = Command::new(vaultd())
            .args(["serve", "--config", config.to_str().unwrap()])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let waited = wait();
        let _ = child.kill();
        child.wait().unwrap();
        token.mend();
        waited
    }

    /// Runs a command on the vault's configuration.
    pub fn run(&self, command: &str) -> Output {
        self.run_with(&[command])
    }

    /// Runs a command and its options on the vault's configuration.
    pub fn run_with(&self, command: &[&str]) -> Output {
        run(&[command, &["--config", self.path("vaultd.toml").to_str().unwrap()]].concat())
    }

    /// Runs `pkcs11-tool` on the vault's token, logged in: the second eye on the keys.
    pub fn pkcs11_tool(&self, arguments: &[&str]) -> Output {
        let pin = fs::read_to_string(self.path("hsm.pin")).unwrap();
        let module = Module::of_this_run();
        Command::new("pkcs11-tool")
            .envs(module.environment(self.dir.path()))
            .arg("--module")
            .arg(module.path())
            .args(["--token-label", TOKEN_LABEL, "--login", "--pin", &pin])
            .args(arguments)
            .output()
            .unwrap()
    }

    /// Sends SIGTERM and waits.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait()
    }

    /// Sends SIGKILL and waits.
    pub fn kill(&mut self) {
        self.signal("KILL");
        self.wait();
    }

    /// Sends a signal.
    pub fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    /// Whether the daemon has ended by itself; [`Vault::wait`] tells how.
    pub fn has_ended(&mut self) -> bool {
        self.child.as_mut().expect("started").try_wait().unwrap().is_some()
    }

    /// Waits for the daemon to end by itself.
    ///
    /// # Panics
    /// If it has not after a minute.
    pub fn wait(&mut self) -> ExitStatus {
        until(PATIENCE, "vaultd ends", || self.has_ended());
        self.child.take().expect("running").wait().unwrap()
    }

    /// Has every `curl` that `command` runs wait for half a minute at most, though its line stays as it was printed.
    pub fn limit_curl<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        fs::write(self.path(".curlrc"), "max-time = 30\n").unwrap();
        command.env("CURL_HOME", self.path(""))
    }

    /// Has chaos-hsm go by `script`, or whatever else reads the file. At once: a call that hangs looks at it, and is not to
    /// find it empty.
    pub fn trouble(&self, script: &str) {
        let [new, fault] = ["fault.new", "fault"].map(|name| self.path(name));
        fs::write(&new, script).unwrap();
        fs::rename(new, fault).unwrap();
    }

    /// Ends that trouble, if there is any.
    pub fn calm(&self) {
        match fs::remove_file(self.path("fault")) {
            Err(error) if error.kind() != ErrorKind::NotFound => panic!("{error}"),
            _ => {}
        }
    }

    /// The lines that vaultd printed before it said that it is ready.
    pub fn banner(&self) -> &[String] {
        &self.banner
    }

    fn spawn(&mut self, arguments: &[&str]) {
        let log = self.open_log();
        self.spawn_with_log(arguments, log);
    }

    fn spawn_with_log(&mut self, arguments: &[&str], log: File) {
        let mut command = Command::new(vaultd());
        command.args(arguments);
        self.spawn_command(command, log);
    }

    fn open_log(&self) -> File {
        File::options().create(true).append(true).open(self.path("log")).unwrap()
    }

    fn spawn_command(&mut self, mut command: Command, log: File) {
        if let Some(recording) = &self.recording {
            recording.instrument(&mut command);
        }
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        self.child = Some(child);
        let (ready, is_ready) = mpsc::channel();
        thread::spawn(move || {
            let mut lines = out.lines().map_while(Result::ok);
            let mut banner = Vec::new();
            for line in &mut lines {
                if line.starts_with("ready") {
                    let _ = ready.send(banner);
                    break;
                }
                banner.push(line);
            }
            // Goes on reading: a daemon whose output nobody takes might wait for ever.
            lines.for_each(drop);
        });
        self.banner = is_ready.recv_timeout(PATIENCE).expect("vaultd did not get ready");
    }
}

impl Drop for Vault {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if thread::panicking() {
            eprintln!("--- the daemon's log ---\n{}", self.log());
        }
    }
}

/// Sends a process the signal with this name, such as `TERM`.
pub fn signal(pid: u32, name: &str) {
    let signal: Signal = format!("SIG{name}").parse().unwrap();
    kill(Pid::from_raw(pid.try_into().unwrap()), signal).unwrap();
}

/// Sends a request and reads its answer.
fn send(socket: &Path, jwt: &str, method: &str, path: &str, body: &str) -> Answer {
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: vault\r\nauthorization: Bearer {jwt}\r\ncontent-type: \
         application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    exchange(socket, request.as_bytes())
}

/// A configuration whose module is troubled by the script in the vault's file `fault` (`tests/chaos-hsm`).
pub fn chaotic(config: &str) -> String {
    let chaos = vaultd().with_file_name("libchaos_hsm.so");
    assert!(chaos.exists(), "{} is not built: `cargo build --workspace`", chaos.display());
    let fault = config.lines().find_map(|line| line.strip_prefix("socket = ")).unwrap();
    let fault = fault.replace("vaultd.sock", "fault");
    let module = Module::of_this_run().path().display().to_string();
    config.replace(&module, chaos.to_str().unwrap()).replace(
        "environment = {",
        &format!("environment = {{ CHAOS_HSM_MODULE = \"{module}\", CHAOS_HSM_FAULT = {fault},"),
    )
}

/// The `vaultd` of this build.
pub fn vaultd() -> PathBuf {
    built("vaultd")
}

/// The program or library `name` of this build.
pub fn built(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    // Tests and examples are in directories of their own, programs are not.
    let dir = test.parent().unwrap();
    let is_own = dir.ends_with("deps") || dir.ends_with("examples");
    let profile = if is_own { dir.parent().unwrap() } else { dir };
    let program = profile.join(name);
    assert!(
        program.exists(),
        "{} is not built: `cargo build --workspace`, or `make test`",
        program.display()
    );
    program
}

/// Runs `vaultd` to its end. One that hangs is killed after a minute.
pub fn run(arguments: &[&str]) -> Output {
    let child = Command::new(vaultd()).args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    to_the_end(child.unwrap(), &format!("vaultd {arguments:?}"))
}
