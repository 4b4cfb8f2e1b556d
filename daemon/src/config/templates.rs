//! Validation of `[tokens]`: what tokens look like.

use std::collections::BTreeMap;

use super::{raw, validate::Validator};
use crate::vault::{Format, LuhnRule, Reuse, Template, Templates};

impl Validator {
    pub(super) fn templates(&mut self, raw: raw::Tokens) -> Option<Templates> {
        let default = raw.default_template.unwrap_or_else(|| "default".to_owned());
        let mut by_name = BTreeMap::new();
        if raw.templates.is_empty() {
            by_name.insert("default".to_owned(), Template::DEFAULT);
        }
        for (name, raw) in raw.templates {
            let template = self.template(&format!("tokens.templates.{name}"), &raw);
            by_name.insert(name, template);
        }
        match Templates::new(by_name, default) {
            Ok(templates) => Some(templates),
            Err(errors) => {
                for (name, error) in errors {
                    let key = name.map_or("tokens.default_template".to_owned(), |name| {
                        format!("tokens.templates.{name}")
                    });
                    self.error(&key, error.to_string());
                }
                None
            }
        }
    }

    fn template(&mut self, key: &str, raw: &raw::Template) -> Template {
        if raw.format != raw::Format::Numeric {
            let only_numeric = [
                ("keep_first", raw.keep_first.is_some()),
                ("keep_last", raw.keep_last.is_some()),
                ("luhn", raw.luhn.is_some()),
            ];
            for (name, given) in only_numeric {
                if given {
                    self.error(&format!("{key}.{name}"), "goes with format = \"numeric\" only");
                }
            }
        }
        let kept = |n: Option<u64>| usize::try_from(n.unwrap_or(0)).unwrap_or(usize::MAX).min(1_000);
        let expires_in =
            raw.expires_in.map(|seconds| self.duration(&format!("{key}.expires_in"), Some(seconds), seconds));
        Template {
            format: match raw.format {
                raw::Format::Uuid => Format::Uuid,
                raw::Format::Opaque => Format::Opaque,
                raw::Format::Numeric => Format::Numeric {
                    keep_first: kept(raw.keep_first),
                    keep_last: kept(raw.keep_last),
                    luhn: match raw.luhn {
                        None | Some(raw::Luhn::Invalid) => LuhnRule::Invalid,
                        Some(raw::Luhn::Valid) => LuhnRule::Valid,
                        Some(raw::Luhn::Any) => LuhnRule::Any,
                    },
                },
            },
            require_luhn: raw.require_luhn.unwrap_or(true),
            reuse: match raw.reuse {
                raw::Reuse::Tenant => Reuse::Tenant,
                raw::Reuse::Never => Reuse::Never,
            },
            expires_in,
        }
    }
}
