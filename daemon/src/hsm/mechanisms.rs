//! Which mechanisms a token must have, and what follows if it lacks one.

use cryptoki::{
    context::Pkcs11,
    error::Error as Pkcs11Error,
    mechanism::{MechanismInfo, MechanismType},
    slot::Slot,
};

/// A mechanism the vault wants, or several of which one is enough.
#[derive(Clone, Copy, Debug)]
pub struct MechanismNeed {
    /// The PKCS#11 name, or names.
    pub name: &'static str,
    /// What follows if the token lacks it.
    pub consequence: &'static str,
    /// Whether the vault cannot serve without; else it is new keys that cannot be made.
    pub serving: bool,
    any_of: &'static [MechanismType],
    does: fn(&MechanismInfo) -> bool,
}

const NEEDS: [MechanismNeed; 6] = [
    MechanismNeed {
        name: "CKM_AES_GCM",
        consequence: "records cannot be sealed: vaultd cannot serve from this token",
        serving: true,
        any_of: &[MechanismType::AES_GCM],
        does: |info| info.encrypt() && info.decrypt(),
    },
    MechanismNeed {
        name: "CKM_SHA256_HMAC",
        consequence: "cards cannot be recognised: vaultd cannot serve from this token",
        serving: true,
        any_of: &[MechanismType::SHA256_HMAC],
        does: MechanismInfo::sign,
    },
    MechanismNeed {
        name: "CKM_SHA256_RSA_PKCS or CKM_RSA_PKCS",
        consequence: "JWTs cannot be signed: vaultd cannot serve from this token",
        serving: true,
        any_of: &[MechanismType::SHA256_RSA_PKCS, MechanismType::RSA_PKCS],
        does: MechanismInfo::sign,
    },
    MechanismNeed {
        name: "CKM_AES_KEY_GEN",
        consequence: "vaultd cannot make record and envelope keys in it",
        serving: false,
        any_of: &[MechanismType::AES_KEY_GEN],
        does: MechanismInfo::generate,
    },
    MechanismNeed {
        name: "CKM_GENERIC_SECRET_KEY_GEN or CKM_SHA256_KEY_GEN",
        consequence: "vaultd cannot make fingerprint and holder keys in it",
        serving: false,
        any_of: &[MechanismType::GENERIC_SECRET_KEY_GEN, MechanismType::SHA256_KEY_GEN],
        does: MechanismInfo::generate,
    },
    MechanismNeed {
        name: "CKM_RSA_PKCS_KEY_PAIR_GEN",
        consequence: "vaultd cannot make signing keys in it",
        serving: false,
        any_of: &[MechanismType::RSA_PKCS_KEY_PAIR_GEN],
        does: MechanismInfo::generate_key_pair,
    },
];

/// What the token in `slot` lacks, by its own list.
pub(super) fn missing(module: &Pkcs11, slot: Slot) -> Result<Vec<MechanismNeed>, Pkcs11Error> {
    let listed = module.get_mechanism_list(slot)?;
    let has = |need: &MechanismNeed| {
        let mut listed = need.any_of.iter().filter(|mechanism| listed.contains(mechanism));
        // A module that lists a mechanism and then does not describe it is tried.
        listed.any(|mechanism| {
            module.get_mechanism_info(slot, *mechanism).map_or(true, |info| (need.does)(&info))
        })
    };
    Ok(NEEDS.into_iter().filter(|need| !has(need)).collect())
}
