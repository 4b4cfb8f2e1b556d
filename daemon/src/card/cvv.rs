//! Card verification values: known by name only, because none is ever kept (PCI DSS 3.3.1.2).

const NAMES: [&str; 12] = [
    "cvv",
    "cvv2",
    "cvc",
    "cvc2",
    "cvn",
    "cvn2",
    "cav2",
    "cid",
    "csc",
    "securitycode",
    "cardverificationvalue",
    "cardverificationcode",
];

/// Whether a field of this name is meant to hold a card verification value; case, spaces and separators do not
/// matter.
pub fn is_cvv_name(name: &str) -> bool {
    let plain: String = name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect();
    NAMES.contains(&plain.as_str())
}
