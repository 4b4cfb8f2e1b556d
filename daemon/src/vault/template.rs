//! Templates: how tokens look and live.

use std::{collections::BTreeMap, time::Duration};

use super::VaultError;

/// The most digits of a PAN a `numeric` token may keep (contract, section 4; PCI DSS 3.4.1): of one with 16 digits a million
/// tokens remain, or nine tenths of that where the check digit must not fit.
const MAX_KEPT_DIGITS: usize = 10;
const MAX_NAME_BYTES: usize = 32;

/// How tokens of one kind look and live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// The form of the token.
    pub format: Format,
    /// Whether a PAN that fails its check digit is refused.
    pub require_luhn: bool,
    /// Whether the same PAN gets the same token.
    pub reuse: Reuse,
    /// Lifetime of tokens whose caller names none.
    pub expires_in: Option<Duration>,
}

/// The form of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A UUID of version 7 (RFC 9562, 5.7): grows with time, so that the store appends.
    Uuid,
    /// As many digits as the PAN.
    Numeric {
        /// Leading digits of the PAN that are kept.
        keep_first: usize,
        /// Trailing digits of the PAN that are kept.
        keep_last: usize,
        /// Whether the token passes a Luhn check.
        luhn: LuhnRule,
    },
    /// `tok_` and 128 random bits in base58.
    Opaque,
}

/// What the check digit of a `numeric` token must do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LuhnRule {
    /// Fail: the token can never be mistaken for a card number.
    Invalid,
    /// Fit.
    Valid,
    /// Either.
    Any,
}

impl LuhnRule {
    /// Where the check digit must fit, one digit is not free.
    const fn max_kept_digits(self) -> usize {
        match self {
            Self::Valid => MAX_KEPT_DIGITS - 1,
            Self::Invalid | Self::Any => MAX_KEPT_DIGITS,
        }
    }
}

/// Whether the same PAN gets the same token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// Inside a tenant and template, yes.
    Tenant,
    /// Never: each request makes a token.
    Never,
}

/// Why a template is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// The name cannot be used.
    #[error("a template's name must be 1 to {MAX_NAME_BYTES} of a-z, 0-9, `-` and `_`")]
    Name,
    /// Too much of the PAN is kept.
    #[error(
        "keep_first and keep_last are {kept} together and may be {most} at most with this `luhn`: more would leave \
         too few tokens for a 16-digit PAN"
    )]
    KeepsTooMuch {
        /// How many digits are kept.
        kept: usize,
        /// How many may be.
        most: usize,
    },
    /// The default template is not there.
    #[error("the default template {0:?} is not configured")]
    NoDefault(String),
}

impl Template {
    /// The template where nothing is configured.
    pub const DEFAULT: Self =
        Self { format: Format::Uuid, require_luhn: true, reuse: Reuse::Tenant, expires_in: None };

    fn validate(&self, name: &str) -> Result<(), TemplateError> {
        let in_alphabet = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
        if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.bytes().all(in_alphabet) {
            return Err(TemplateError::Name);
        }
        match self.format {
            Format::Numeric { keep_first, keep_last, luhn } => {
                let (kept, most) = (keep_first + keep_last, luhn.max_kept_digits());
                if kept > most { Err(TemplateError::KeepsTooMuch { kept, most }) } else { Ok(()) }
            }
            Format::Uuid | Format::Opaque => Ok(()),
        }
    }
}

/// The configured templates and which of them is the default.
#[derive(Clone, Debug)]
pub struct Templates {
    by_name: BTreeMap<String, Template>,
    default: String,
}

impl Templates {
    /// Vets `templates`.
    ///
    /// # Errors
    /// Each [`TemplateError`] with the name of its template, or with `None` for the default.
    pub fn new(
        by_name: BTreeMap<String, Template>,
        default: String,
    ) -> Result<Self, Vec<(Option<String>, TemplateError)>> {
        let mut errors: Vec<_> = by_name
            .iter()
            .filter_map(|(name, template)| Some((Some(name.clone()), template.validate(name).err()?)))
            .collect();
        if !by_name.contains_key(&default) {
            errors.push((None, TemplateError::NoDefault(default.clone())));
        }
        if errors.is_empty() { Ok(Self { by_name, default }) } else { Err(errors) }
    }

    /// The template `name`, or the default one.
    pub(super) fn select(&self, name: Option<&str>) -> Result<(&str, &Template), VaultError> {
        let name = name.unwrap_or(&self.default);
        self.by_name.get_key_value(name).map(|(name, template)| (name.as_str(), template)).ok_or_else(|| {
            let known: Vec<_> = self.by_name.keys().map(String::as_str).collect();
            VaultError::Request(format!("there is no such template; configured are: {}", known.join(", ")))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numeric(keep_first: usize, keep_last: usize, luhn: LuhnRule) -> Template {
        Template { format: Format::Numeric { keep_first, keep_last, luhn }, ..Template::DEFAULT }
    }

    fn errors(name: &str, template: Template, default: &str) -> Vec<(Option<String>, TemplateError)> {
        Templates::new([(name.to_owned(), template)].into(), default.to_owned()).err().unwrap_or_default()
    }

    #[test]
    fn ten_kept_digits_are_the_most_and_nine_where_the_check_digit_must_fit() {
        let too_much = |kept, most| [(Some("n".to_owned()), TemplateError::KeepsTooMuch { kept, most })];
        assert_eq!(errors("n", numeric(6, 4, LuhnRule::Invalid), "n"), []);
        assert_eq!(errors("n", numeric(6, 5, LuhnRule::Any), "n"), too_much(11, 10));
        assert_eq!(errors("n", numeric(6, 3, LuhnRule::Valid), "n"), []);
        assert_eq!(errors("n", numeric(6, 4, LuhnRule::Valid), "n"), too_much(10, 9));
    }

    #[test]
    fn names_are_plain_and_the_default_exists() {
        assert_eq!(errors("A b", Template::DEFAULT, "A b"), [(Some("A b".to_owned()), TemplateError::Name)]);
        assert_eq!(errors("a", Template::DEFAULT, "b"), [(None, TemplateError::NoDefault("b".to_owned()))]);
    }
}
