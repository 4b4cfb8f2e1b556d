//! Every kind of fault, over SoftHSM2, by a caller that knows nothing of it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    unsafe_code,
    reason = "tests; they set the environment before the module is loaded"
)]

use std::{
    fs,
    path::PathBuf,
    sync::{LazyLock, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Function, Pkcs11},
    error::{Error, RvError},
    mechanism::{Mechanism, aead::GcmParams},
    object::{Attribute, ObjectHandle},
    session::{Session, UserType},
    slot::Slot,
    types::AuthPin,
};
use tempfile::TempDir;

/// The module over a token of its own. One for the process: its environment is.
struct Token {
    dir: TempDir,
    pkcs11: Pkcs11,
    slot: Slot,
    /// Held by the test that troubles it.
    turn: Mutex<()>,
}

static TOKEN: LazyLock<Token> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    let conf = dir.path().join("softhsm2.conf");
    fs::write(&conf, format!("directories.tokendir = {}\nlog.level = ERROR\n", dir.path().display()))
        .unwrap();
    // Cargo puts the module of a package beside the package's tests.
    let module = std::env::current_exe().unwrap().with_file_name("libchaos_hsm.so");
    // SAFETY: every test begins here, and waits; nothing but Rust's library, which locks, reads the environment yet.
    unsafe {
        std::env::set_var("SOFTHSM2_CONF", conf);
        std::env::set_var("CHAOS_HSM_MODULE", softhsm());
        std::env::set_var("CHAOS_HSM_FAULT", dir.path().join("fault"));
    }
    let pkcs11 = Pkcs11::new(module).unwrap();
    pkcs11.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).unwrap();
    let officer = AuthPin::from("officer");
    pkcs11.init_token(pkcs11.get_slots_with_token().unwrap()[0], &officer, "chaos").unwrap();
    let slot = pkcs11.get_slots_with_initialized_token().unwrap()[0];
    let session = pkcs11.open_rw_session(slot).unwrap();
    session.login(UserType::So, Some(&officer)).unwrap();
    session.init_pin(&pin()).unwrap();
    session.logout().unwrap();
    session.login(UserType::User, Some(&pin())).unwrap();
    let flags = [Attribute::Token(true), Attribute::Private(true), Attribute::ValueLen(32.into())];
    let aes = [Attribute::Label("aes".into()), Attribute::Encrypt(true), Attribute::Decrypt(true)];
    let mac = [Attribute::Label("mac".into()), Attribute::Sign(true)];
    session.generate_key(&Mechanism::AesKeyGen, &[&flags[..], &aes[..]].concat()).unwrap();
    session.generate_key(&Mechanism::GenericSecretKeyGen, &[&flags[..], &mac[..]].concat()).unwrap();
    drop(session);
    Token { dir, pkcs11, slot, turn: Mutex::new(()) }
});

impl Token {
    fn log_in(&self) -> Result<Caller, Error> {
        let session = self.pkcs11.open_rw_session(self.slot)?;
        match session.login(UserType::User, Some(&pin())) {
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {}
            Err(error) => return Err(error),
        }
        let (aes, mac) = (find(&session, "aes")?, find(&session, "mac")?);
        Ok(Caller { session, aes, mac })
    }
}

/// The token, for one test at a time. No fault is in force at first.
struct Turn {
    token: &'static Token,
    _turn: MutexGuard<'static, ()>,
}

impl Turn {
    fn begin() -> Self {
        let turn = TOKEN.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = Self { token: &TOKEN, _turn: turn };
        turn.calm();
        turn
    }

    fn trouble(&self, script: &str) {
        // Exchanged at once: a call that hangs looks at it, and is not to find it empty.
        let [new, fault] = ["fault.new", "fault"].map(|name| self.token.dir.path().join(name));
        fs::write(&new, script).unwrap();
        fs::rename(new, fault).unwrap();
    }

    fn calm(&self) {
        let _ = fs::remove_file(self.token.dir.path().join("fault"));
    }

    fn log_in(&self) -> Caller {
        self.token.log_in().unwrap()
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.calm();
    }
}

/// A session that is logged in, with its keys.
struct Caller {
    session: Session,
    aes: ObjectHandle,
    mac: ObjectHandle,
}

impl Caller {
    fn sign(&self) -> Result<Vec<u8>, Error> {
        self.session.sign(&Mechanism::Sha256Hmac, self.mac, b"data")
    }

    fn seal(&self) -> Result<Vec<u8>, Error> {
        let mut nonce = [7; 12];
        let mechanism = Mechanism::AesGcm(GcmParams::new(&mut nonce, b"aad", 128.into())?);
        self.session.encrypt(&mechanism, self.aes, b"plaintext")
    }

    fn open(&self, sealed: &[u8]) -> Result<Vec<u8>, Error> {
        let mut nonce = [7; 12];
        let mechanism = Mechanism::AesGcm(GcmParams::new(&mut nonce, b"aad", 128.into())?);
        self.session.decrypt(&mechanism, self.aes, sealed)
    }
}

fn find(session: &Session, label: &str) -> Result<ObjectHandle, Error> {
    let found = session.find_objects(&[Attribute::Label(label.into())])?;
    // Private objects are out of sight without a login.
    found.first().copied().ok_or(Error::Pkcs11(RvError::UserNotLoggedIn, Function::FindObjects))
}

fn pin() -> AuthPin {
    AuthPin::from("user-pin")
}

fn softhsm() -> PathBuf {
    let places = ["/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so"];
    places.iter().map(PathBuf::from).find(|path| path.exists()).expect("SoftHSM2 is installed")
}

/// The return value of a call that must fail.
fn code<T: std::fmt::Debug>(result: Result<T, Error>) -> RvError {
    match result {
        Err(Error::Pkcs11(code, _)) => code,
        other => panic!("{other:?}"),
    }
}

#[test]
fn without_a_script_everything_works() {
    let turn = Turn::begin();
    let caller = turn.log_in();
    assert_eq!(caller.sign().unwrap().len(), 32);
    let sealed = caller.seal().unwrap();
    assert_eq!(caller.open(&sealed).unwrap(), b"plaintext");
    // Handles given out by each function that makes objects are good, and go with the object.
    let copy = caller.session.copy_object(caller.mac, &[Attribute::Token(false)]).unwrap();
    assert_eq!(
        caller.session.sign(&Mechanism::Sha256Hmac, copy, b"data").unwrap(),
        caller.sign().unwrap(),
        "the copy is the same key"
    );
    caller.session.destroy_object(copy).unwrap();
    assert_eq!(code(caller.session.get_attributes(copy, &[])), RvError::ObjectHandleInvalid);
    let [modulus, exponent] =
        [Attribute::ModulusBits(2_048.into()), Attribute::PublicExponent(vec![1, 0, 1])];
    let (public, private) = caller
        .session
        .generate_key_pair(
            &Mechanism::RsaPkcsKeyPairGen,
            &[modulus, exponent, Attribute::Verify(true)],
            &[Attribute::Sign(true)],
        )
        .unwrap();
    let signature = caller.session.sign(&Mechanism::Sha256RsaPkcs, private, b"data").unwrap();
    caller.session.verify(&Mechanism::Sha256RsaPkcs, public, b"data", &signature).unwrap();
}

#[test]
fn an_error_strikes_the_call_it_names_and_ends_its_operation() {
    let turn = Turn::begin();
    let caller = turn.log_in();
    turn.trouble("C_Encrypt,C_Sign error CKR_DEVICE_ERROR after=1 count=1");
    assert!(caller.sign().is_ok());
    assert_eq!(code(caller.seal()), RvError::DeviceError);
    assert!(caller.seal().is_ok(), "on the same session, without CKR_OPERATION_ACTIVE");
    turn.trouble("* error 0xE0");
    assert_eq!(code(caller.sign()), RvError::TokenNotPresent);
    assert_eq!(code(turn.token.pkcs11.open_ro_session(turn.token.slot)), RvError::TokenNotPresent);
    turn.trouble("* explode\n");
    assert_eq!(code(caller.sign()), RvError::TokenNotPresent, "what cannot be read changes nothing");
    turn.calm();
    assert!(caller.sign().is_ok());
}

#[test]
fn a_return_value_alone_is_an_outage() {
    let turn = Turn::begin();
    let caller = turn.log_in();
    turn.trouble("0x30\n");
    assert_eq!(code(caller.sign()), RvError::DeviceError);
    assert_eq!(code(caller.session.generate_random_vec(8)), RvError::DeviceError);
    assert_eq!(code(turn.token.pkcs11.open_ro_session(turn.token.slot)), RvError::DeviceError);
    turn.calm();
    assert!(caller.sign().is_ok());
}

#[test]
fn a_rate_troubles_its_part_of_the_calls() {
    let turn = Turn::begin();
    let caller = turn.log_in();
    turn.trouble("seed 42\nC_Sign error CKR_FUNCTION_FAILED rate=0.25");
    let run = || (0..400).map(|_| caller.sign().is_err()).collect::<Vec<_>>();
    let first = run();
    let failed = first.iter().filter(|failed| **failed).count();
    assert!((70..=130).contains(&failed), "{failed}");
    turn.calm();
    assert!(caller.sign().is_ok());
    turn.trouble("seed 42\nC_Sign error CKR_FUNCTION_FAILED rate=0.25");
    assert_eq!(run(), first, "the seed decides");
}

#[test]
fn latency_is_each_callers_own() {
    let turn = Turn::begin();
    let callers: Vec<_> = (0..8).map(|_| turn.log_in()).collect();
    turn.trouble("C_Sign latency 100ms");
    let begin = Instant::now();
    thread::scope(|scope| {
        for caller in callers {
            scope.spawn(move || (caller.sign().unwrap(), caller.sign().unwrap()));
        }
    });
    let took = begin.elapsed();
    // One after the other they would take 1.6 s, and twice that if asking for the length were delayed.
    assert!((Duration::from_millis(200)..Duration::from_millis(1_200)).contains(&took), "{took:?}");
}

#[test]
fn a_hang_ends_with_its_rule_or_its_time() {
    let turn = Turn::begin();
    let (caller, other) = (turn.log_in(), turn.log_in());
    turn.trouble("C_Sign hang");
    let (done, is_done) = mpsc::channel();
    let hung = thread::spawn(move || done.send(caller.sign()).unwrap());
    assert!(is_done.recv_timeout(Duration::from_millis(300)).is_err());
    turn.trouble("# still there\nC_Sign hang # with other words");
    assert!(is_done.recv_timeout(Duration::from_millis(300)).is_err());
    assert!(other.seal().is_ok(), "nobody else waits for it");
    turn.trouble("C_Encrypt hang");
    assert!(is_done.recv_timeout(Duration::from_secs(30)).unwrap().is_ok());
    hung.join().unwrap();

    turn.trouble("C_Sign hang 200ms count=1");
    let begin = Instant::now();
    assert!(other.sign().is_ok());
    assert!(begin.elapsed() >= Duration::from_millis(200));
}

#[test]
fn sessions_are_lost_in_the_real_module() {
    let turn = Turn::begin();
    let (caller, other) = (turn.log_in(), turn.log_in());
    turn.trouble("C_SignInit lose-sessions count=1");
    assert_eq!(code(caller.sign()), RvError::SessionHandleInvalid);
    assert_eq!(code(other.seal()), RvError::SessionHandleInvalid, "all of them");
    assert!(turn.log_in().sign().is_ok(), "a new session and login mend it");
}

#[test]
fn sessions_can_be_lost_under_callers() {
    let turn = Turn::begin();
    turn.trouble("C_Sign lose-sessions after=50 count=3");
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut caller = None;
                for _ in 0..100 {
                    let signed = caller.get_or_insert_with(|| patient(|| turn.token.log_in())).sign();
                    if signed.is_err() {
                        caller = None;
                    }
                }
            });
        }
    });
}

/// Logging in while others lose the sessions may take more than one attempt.
fn patient<T>(attempt: impl Fn() -> Result<T, Error>) -> T {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        match attempt() {
            Ok(done) => return done,
            Err(error) => assert!(Instant::now() < end, "{error}"),
        }
    }
}

#[test]
fn the_login_is_lost_in_the_real_module() {
    let turn = Turn::begin();
    let caller = turn.log_in();
    turn.trouble("C_SignInit lose-login count=1");
    assert!(caller.sign().is_err());
    assert_eq!(code(find(&caller.session, "mac")), RvError::UserNotLoggedIn);
    caller.session.login(UserType::User, Some(&pin())).unwrap();
    assert!(find(&caller.session, "mac").is_ok());
    assert!(turn.log_in().sign().is_ok());
}

#[test]
fn handles_go_stale_until_found_anew() {
    let turn = Turn::begin();
    let (mut caller, other) = (turn.log_in(), turn.log_in());
    turn.trouble("C_Sign stale-handles count=1");
    assert!(caller.sign().is_ok(), "its key was handed in before");
    assert_eq!(code(caller.sign()), RvError::KeyHandleInvalid);
    let attributes = caller.session.get_attributes(caller.aes, &[cryptoki::object::AttributeType::Label]);
    assert_eq!(code(attributes), RvError::ObjectHandleInvalid);
    caller.mac = find(&caller.session, "mac").unwrap();
    assert!(caller.sign().is_ok());
    assert_eq!(code(other.sign()), RvError::KeyHandleInvalid, "what others hold stays stale");
}

#[test]
fn lengths_are_wrong_as_ordered() {
    let turn = Turn::begin();
    let caller = turn.log_in();
    let (right, sealed) = (caller.sign().unwrap(), caller.seal().unwrap());
    turn.trouble("C_Sign,C_Decrypt wrong-length -1");
    assert_eq!(caller.sign().unwrap(), right[..31]);
    assert_eq!(caller.open(&sealed).unwrap(), b"plaintex");
    turn.trouble("C_Sign,C_Encrypt wrong-length +1 count=1");
    assert_eq!(caller.sign().unwrap(), [&right[..], &[0]].concat());
    assert_eq!(caller.sign().unwrap(), right);
    turn.calm();
    assert_eq!(caller.seal().unwrap(), sealed);
}
