//! What a caller wants to remember with a token.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Deserializer, Serialize, de};

/// A flat object of the caller's own: names to strings, numbers or booleans. Sealed by the HSM at rest.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct Metadata(pub BTreeMap<String, MetadataValue>);

/// One value of [`Metadata`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(untagged, expecting = "a string, a number or a boolean")]
pub enum MetadataValue {
    /// `true` or `false`.
    Bool(bool),
    /// A whole or decimal number.
    #[cfg_attr(feature = "openapi", schema(value_type = f64))]
    Number(serde_json::Number),
    /// UTF-8 text.
    Text(String),
}

/// Refuses a name that comes twice: which of the two counts would depend on the reader.
impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Metadata;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a flat object")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Metadata, A::Error> {
                let mut entries = BTreeMap::new();
                while let Some((name, value)) = map.next_entry()? {
                    if entries.insert(name, value).is_some() {
                        return Err(de::Error::custom("duplicate name in metadata"));
                    }
                }
                Ok(Metadata(entries))
            }
        }

        deserializer.deserialize_map(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_pass_and_come_back_the_same() {
        let text = r#"{"order":"A-1","paid":true,"total":12.5,"units":3}"#;
        let metadata: Metadata = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&metadata).unwrap(), text);
    }

    #[test]
    fn nested_values_and_duplicate_names_are_refused() {
        for text in [r#"{"a":{}}"#, r#"{"a":[1]}"#, r#"{"a":null}"#, r#"{"a":1,"a":1}"#] {
            assert!(serde_json::from_str::<Metadata>(text).is_err(), "{text}");
        }
    }
}
