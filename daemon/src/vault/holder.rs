//! Card holders: found by name without the name being in the store in clear.

use icu_casemap::CaseMapper;
use icu_normalizer::ComposingNormalizer;
use zeroize::Zeroizing;

use super::{Vault, VaultError, tokenize::cut};
use crate::{hsm::KeyName, store::BlindKey};

impl Vault {
    /// Where each holder, given with its tenant, is looked up by `key`. Order is kept.
    ///
    /// The HSM hashes a name for the use, the tenant and the normal form, so that the same name has unrelated hashes
    /// in two tenants, and none that is good for anything else.
    pub(super) async fn holder_keys<'h>(
        &self,
        key: KeyName,
        holders: impl Iterator<Item = (&'h str, &'h str)>,
    ) -> Result<Vec<BlindKey>, VaultError> {
        let messages: Vec<_> = holders.map(|(tenant, holder)| message(tenant, holder)).collect();
        if messages.is_empty() {
            return Ok(Vec::new());
        }
        let hashes = self.hsm.mac(key, messages).await?;
        Ok(hashes.iter().map(|hash| BlindKey { version: key.version, hash: cut(hash) }).collect())
    }
}

pub(super) fn message(tenant: &str, holder: &str) -> Zeroizing<Vec<u8>> {
    const USE: &[u8] = b"vaultd holder v1\0";
    Zeroizing::new([USE, tenant.as_bytes(), b"\0", normal_form(holder).as_bytes()].concat())
}

/// A name as it is compared: compatibility forms and case folded (Unicode Standard, 3.13, `NFKC(toCasefold(NFKC))`),
/// one space between words.
fn normal_form(holder: &str) -> Zeroizing<String> {
    let nfkc = ComposingNormalizer::new_nfkc();
    let composed = Zeroizing::new(nfkc.normalize(holder).into_owned());
    let folded = Zeroizing::new(CaseMapper::new().fold_string(&composed).into_owned());
    let composed = Zeroizing::new(nfkc.normalize(&folded).into_owned());
    let words: Vec<_> = composed.split_whitespace().collect();
    Zeroizing::new(words.join(" "))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn forms_of_one_name_are_one_name() {
        for (name, other) in [
            ("Ada Lovelace", "  ADA\u{a0}\tlovelace "),
            ("Jos\u{e9} N\u{fa}\u{f1}ez", "JOSE\u{301} NU\u{301}N\u{303}EZ"),
            ("Stra\u{df}e", "STRASSE"),
            ("\u{ff21}\u{ff24}\u{ff21}", "ada"),
            (
                "\u{3a3}\u{3af}\u{3c3}\u{3c5}\u{3c6}\u{3bf}\u{3c2}",
                "\u{3c3}\u{3af}\u{3c3}\u{3c5}\u{3c6}\u{3bf}\u{3c3}",
            ),
        ] {
            assert_eq!(*normal_form(name), *normal_form(other), "{name}");
        }
        assert_ne!(*normal_form("Ada"), *normal_form("Adah"));
    }

    proptest! {
        #[test]
        fn a_normal_form_is_its_own(name in "\\PC{0,40}") {
            let once = normal_form(&name);
            prop_assert_eq!(&*normal_form(&once), &*once);
        }
    }
}
