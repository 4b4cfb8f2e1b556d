//! `vaultd dev`: one command from nothing to a working vault, for development only.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use aws_lc_rs::{
    encoding::AsDer,
    rand::fill,
    rsa::{KeyPair, KeySize},
    signature::KeyPair as _,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use nix::unistd::geteuid;
use secrecy::SecretString;
use vault_api::Scope;

use super::{CommandError, boot::module_environment, init::provision, logging, serve};
use crate::{
    config::{Config, MAX_SOCKET_PATH_BYTES},
    hsm,
    jose::KeySet,
    sandbox::make_private_dir,
    vault::now_s,
};

const ISSUER: &str = "dev-issuer";
const AUDIENCE: &str = "vaultd";
const TENANT: &str = "dev";
const TOKEN_LABEL: &str = "vaultd-dev";
/// A week: the contract asks for a day at least.
const JWT_LIFETIME_S: u64 = 7 * 86_400;
/// Where distributions put SoftHSM2's module.
const SOFTHSM_MODULES: [&str; 6] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/lib64/softhsm/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
];

/// What `vaultd dev` is told.
#[derive(Clone, Debug)]
pub struct DevOptions {
    /// Where everything is kept.
    pub dir: PathBuf,
    /// The PKCS#11 module; the usual places are searched if `None`.
    pub module: Option<PathBuf>,
    /// A file whose `[hsm]` table names a token that is initialised, instead of a throwaway one.
    pub hsm: Option<PathBuf>,
}

/// Makes what is missing in the directory, says how to use it, and serves until SIGTERM or SIGINT.
///
/// # Errors
/// [`CommandError`].
pub fn dev(options: &DevOptions, say: &mut dyn FnMut(&str)) -> Result<(), CommandError> {
    // A directory that is there may be open to others: what must be private in it is made so.
    let failed = |error| CommandError::new("--dir", format!("{}: {error}", options.dir.display()));
    if options.dir.exists() && !options.dir.is_dir() {
        let why =
            format!("{} is no directory: name one, which is made if it is missing", options.dir.display());
        return Err(CommandError::new("--dir", why));
    }
    DirBuilder::new().recursive(true).mode(0o700).create(&options.dir).map_err(failed)?;
    let files = Files { dir: fs::canonicalize(&options.dir).map_err(failed)? };
    files.check_path()?;
    files.make_config(options)?;
    let config = Config::load(&files.at("vaultd.toml"))?;
    files.check_config(&config, options)?;
    logging::start(&config.log);
    module_environment(&config)?;
    files.make_token(&config)?;
    files.make_issuer()?;
    provision(&config, &mut |line| tracing::info!("{line}"))?;
    files.make_jwt()?;
    banner(&files, say);
    serve::run(&config)
}

/// The files of a development directory (contract, section 2).
struct Files {
    dir: PathBuf,
}

impl Files {
    fn at(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// A path that fits into a socket's address and into SoftHSM2's configuration, which has no quoting.
    fn check_path(&self) -> Result<(), CommandError> {
        let socket = self.at("vaultd.sock");
        if socket.as_os_str().len() > MAX_SOCKET_PATH_BYTES {
            let why = format!(
                "{} is too long for a Unix socket ({MAX_SOCKET_PATH_BYTES} bytes): take a shorter directory",
                socket.display()
            );
            return Err(CommandError::new("--dir", why));
        }
        match self.dir.to_str() {
            Some(text) if !text.contains(['=', '#', '\'']) && !text.chars().any(char::is_control) => Ok(()),
            _ => Err(CommandError::Failed(format!(
                "--dir: {} must be UTF-8 without `=`, `#`, quotes and control characters: SoftHSM2 cannot be told of it",
                self.dir.display()
            ))),
        }
    }

    /// A configuration that was made for this directory, and for the token that is asked for.
    fn check_config(&self, config: &Config, options: &DevOptions) -> Result<(), CommandError> {
        let path = self.at("vaultd.toml");
        if config.server.socket.path != self.at("vaultd.sock") || !config.store.dir.starts_with(&self.dir) {
            return Err(CommandError::Failed(format!(
                "{} is the configuration of another directory, and so its store and keys would be used: a development \
                 vault cannot be copied or moved; start anew in an empty directory",
                path.display()
            )));
        }
        let differs = |option: &str| {
            Err(CommandError::Failed(format!(
                "{option} is not what {} names: leave it out, or start anew in an empty directory",
                path.display()
            )))
        };
        if options.module.as_ref().is_some_and(|module| *module != config.hsm.library.path) {
            return differs("--module");
        }
        if let Some(file) = &options.hsm {
            let table = hsm_table(file)?;
            if !fs::read_to_string(&path).is_ok_and(|text| text.contains(table.trim())) {
                return differs("--hsm");
            }
        }
        Ok(())
    }

    fn make_config(&self, options: &DevOptions) -> Result<(), CommandError> {
        if self.at("vaultd.toml").exists() {
            return Ok(());
        }
        let hsm = match &options.hsm {
            Some(file) => hsm_table(file)?,
            None => self.softhsm(options.module.as_deref())?,
        };
        self.write("vaultd.toml", config_text(&self.dir, &hsm).as_bytes())
    }

    /// The `[hsm]` table of a throwaway token.
    fn softhsm(&self, module: Option<&Path>) -> Result<String, CommandError> {
        let module = match module {
            Some(module) if module.exists() => module.to_owned(),
            Some(module) => {
                let why = format!("{} does not exist: install the module or correct the path", module.display());
                return Err(CommandError::new("--module", why));
            }
            None => SOFTHSM_MODULES.iter().map(PathBuf::from).find(|path| path.exists()).ok_or_else(|| {
                CommandError::Failed(
                    "SoftHSM2 is not installed: `apt-get install softhsm2`, or name another module with --module"
                        .to_owned(),
                )
            })?,
        };
        Ok(format!(
            "[hsm]\nmodule = {}\ntoken_label = \"{TOKEN_LABEL}\"\npin_file = {}\nenvironment = {{ SOFTHSM2_CONF = {} }}\n",
            quoted(&module),
            quoted(&self.at("hsm.pin")),
            quoted(&self.at("softhsm/softhsm2.conf")),
        ))
    }

    /// A throwaway token, with a PIN nobody has to know.
    fn make_token(&self, config: &Config) -> Result<(), CommandError> {
        let is_ours = config.hsm.pin_file.as_deref() == Some(&self.at("hsm.pin"));
        if !is_ours || self.at("hsm.pin").exists() {
            return Ok(());
        }
        let tokens = self.at("softhsm/tokens");
        make_private_dir(&tokens)?;
        if !self.at("softhsm/softhsm2.conf").exists() {
            let conf = format!(
                "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
                tokens.display()
            );
            self.write("softhsm/softhsm2.conf", conf.as_bytes())?;
        }
        let left = fs::read_dir(&tokens).is_ok_and(|mut entries| entries.next().is_some());
        if left {
            return Err(CommandError::Failed(format!(
                "{} holds a token, but {} with its PIN is missing: put it back, or start anew by removing {}",
                tokens.display(),
                self.at("hsm.pin").display(),
                self.dir.display()
            )));
        }
        let (pin, so_pin) = (random_pin()?, SecretString::from(random_pin()?));
        hsm::initialize_token(&config.hsm.library, TOKEN_LABEL, &so_pin, &SecretString::from(pin.clone()))?;
        // Written last: a token without its PIN would be of no use to the next start.
        self.write("hsm.pin", pin.as_bytes())
    }

    /// The development issuer's key pair.
    fn make_issuer(&self) -> Result<(), CommandError> {
        if self.at("issuer.key.pem").exists() && self.at("issuer.pub.pem").exists() {
            return Ok(());
        }
        let failed = |error| CommandError::new("cannot make the issuer's key pair", error);
        let pair = KeyPair::generate(KeySize::Rsa2048).map_err(failed)?;
        let private = pair.as_der().map_err(failed)?;
        let public = pair.public_key().as_der().map_err(failed)?;
        let as_pem = |tag: &str, der: &[u8]| pem::encode(&pem::Pem::new(tag, der));
        self.write("issuer.pub.pem", as_pem("PUBLIC KEY", public.as_ref()).as_bytes())?;
        self.write("issuer.key.pem", as_pem("PRIVATE KEY", private.as_ref()).as_bytes())
    }

    /// A fresh JWT with every scope.
    fn make_jwt(&self) -> Result<(), CommandError> {
        let failed = |error: &dyn std::fmt::Display| CommandError::new("cannot make token.jwt", error);
        let damaged = |name: &str, error: &dyn std::fmt::Display| {
            let why = format!("{error}; remove issuer.key.pem and issuer.pub.pem to have both made anew");
            CommandError::new(&self.at(name).display().to_string(), why)
        };
        let keys =
            KeySet::load(&self.at("issuer.pub.pem")).map_err(|error| damaged("issuer.pub.pem", &error))?;
        let private =
            fs::read(self.at("issuer.key.pem")).map_err(|error| damaged("issuer.key.pem", &error))?;
        let key = EncodingKey::from_rsa_pem(&private).map_err(|error| damaged("issuer.key.pem", &error))?;
        let mut header = Header::new(Algorithm::RS256);
        header.kid = keys.kids().next().map(str::to_owned);
        let scopes: Vec<_> = Scope::ALL.iter().map(|scope| scope.as_str()).collect();
        let mut jti = [0; 16];
        fill(&mut jti).map_err(|error| failed(&error))?;
        let claims = serde_json::json!({
            "iss": ISSUER,
            "sub": "developer",
            "aud": AUDIENCE,
            "iat": now_s(),
            "exp": now_s() + JWT_LIFETIME_S,
            "jti": URL_SAFE_NO_PAD.encode(jti),
            "tenant": TENANT,
            "scope": scopes.join(" "),
        });
        let jwt = jsonwebtoken::encode(&header, &claims, &key).map_err(|error| failed(&error))?;
        self.write("token.jwt", format!("{jwt}\n").as_bytes())
    }

    /// Writes a file that only its owner can read, whole or not at all.
    fn write(&self, name: &str, content: &[u8]) -> Result<(), CommandError> {
        let (path, draft) = (self.at(name), self.at(&format!("{name}.new")));
        let written = (|| {
            let mut file =
                OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
            file.write_all(content)?;
            file.sync_all()?;
            fs::rename(&draft, &path)
        })();
        written.map_err(|error: io::Error| CommandError::new(&path.display().to_string(), error))
    }
}

fn random_pin() -> Result<String, CommandError> {
    let mut bytes = [0; 16];
    fill(&mut bytes).map_err(|error| CommandError::new("cannot draw a PIN", error))?;
    Ok(bs58::encode(bytes).into_string())
}

fn quoted(path: &Path) -> String {
    toml::Value::String(path.display().to_string()).to_string()
}

fn hsm_table(file: &Path) -> Result<String, CommandError> {
    fs::read_to_string(file)
        .map_err(|error| CommandError::new("--hsm", format!("{}: {error}", file.display())))
}

fn config_text(dir: &Path, hsm: &str) -> String {
    let at = |name: &str| quoted(&dir.join(name));
    // A development vault may be root's.
    let sandbox = if geteuid().is_root() { "[sandbox]\nallow_root = true\n\n" } else { "" };
    format!(
        r#"# Made by `vaultd dev`, FOR DEVELOPMENT ONLY. It is not written again: change it as you like.
# config/vaultd.toml in the sources explains every key.

[server]
socket = {socket}
admin_socket = {admin}

{hsm}
[store]
dir = {store}

[audit]
dir = {audit}

{sandbox}[auth]
audience = "{AUDIENCE}"

[[auth.issuers]]
name = "{ISSUER}"
keys = {keys}
max_lifetime_seconds = {JWT_LIFETIME_S}

# Whoever runs this may log in: POST /v1/login asks for no secret.
[[auth.peers]]
name = "developer"
uid = {uid}
tenant = "{TENANT}"
scopes = [{scopes}]
max_lifetime_seconds = 3600

[tokens]
default_template = "default"

[tokens.templates.default]
format = "uuid"

[tokens.templates.numeric]
format = "numeric"
keep_first = 6
keep_last = 4

[tokens.templates.opaque]
format = "opaque"

[tokens.templates.once]
format = "uuid"
reuse = "never"
"#,
        socket = at("vaultd.sock"),
        admin = at("admin.sock"),
        store = at("store"),
        audit = at("audit"),
        keys = at("issuer.pub.pem"),
        uid = geteuid(),
        sandbox = if hsm.contains("[sandbox]") { "" } else { sandbox },
        scopes = Scope::ALL.iter().map(|scope| format!("\"{scope}\"")).collect::<Vec<_>>().join(", "),
    )
}

fn banner(files: &Files, say: &mut dyn FnMut(&str)) {
    let dir = files.dir.display();
    let curl = format!(
        "curl -sS --unix-socket '{dir}/vaultd.sock' -H \"authorization: Bearer $(cat '{dir}/token.jwt')\" \\\n  \
         -H 'content-type: application/json'"
    );
    for line in [
        "*************************************************************************",
        "*  vaultd dev: FOR DEVELOPMENT ONLY. NEVER PUT A REAL CARD NUMBER IN.   *",
        "*  The keys are in a software token whose PIN lies beside it.           *",
        "*************************************************************************",
        "",
        "Tokenize a test card:",
        "",
        &format!("{curl} -d '{{\"pan\": \"4111 1111 1111 1111\"}}' http://localhost/v1/tokenize"),
        "",
        "Get it back (put the token in):",
        "",
        &format!("{curl} -d '{{\"token\": \"TOKEN\"}}' http://localhost/v1/detokenize"),
        "",
    ] {
        say(line);
    }
}
