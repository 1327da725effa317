//! The syntax of names, labels, keys and ports, with upstream's words for what is wrong.

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const DNS_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const NAME_PART: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const QUALIFIED: &str = "a qualified name must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const CONFIG_KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
const ENV_NAME: &str =
    "a valid environment variable name must consist only of printable ASCII characters other than '='";

/// What is wrong with a value, if anything; several things are several texts.
pub(crate) type Syntax = fn(&str) -> Vec<String>;

/// A DNS label of RFC 1123, such as a container's name.
pub(crate) fn dns_label(value: &str) -> Vec<String> {
    checks([(value.len() <= 63, "must be no more than 63 characters"), (is_label(value), LABEL)])
}

/// A DNS subdomain of RFC 1123, such as most objects' names.
pub(crate) fn dns_subdomain(value: &str) -> Vec<String> {
    let valid = value.split('.').all(is_label);
    checks([(value.len() <= 253, "must be no more than 253 characters"), (valid, SUBDOMAIN)])
}

/// A DNS label of RFC 1035, such as a service's name.
pub(crate) fn dns_1035_label(value: &str) -> Vec<String> {
    let valid = is_label(value) && value.starts_with(|c: char| c.is_ascii_lowercase());
    checks([(value.len() <= 63, "must be no more than 63 characters"), (valid, DNS_1035)])
}

/// A key of a label, an annotation or a finalizer: an optional prefix and a name.
pub(crate) fn qualified_name(value: &str) -> Vec<String> {
    let (prefix, name) = match value.split_once('/') {
        None => (None, value),
        Some((_, name)) if name.contains('/') => return vec![QUALIFIED.to_owned()],
        Some((prefix, name)) => (Some(prefix), name),
    };
    let mut problems = Vec::new();
    match prefix {
        None => {}
        Some("") => problems.push("prefix part must be non-empty".to_owned()),
        Some(prefix) => {
            problems.extend(dns_subdomain(prefix).iter().map(|text| format!("prefix part {text}")));
        }
    }
    if name.is_empty() {
        problems.push("name part must be non-empty".to_owned());
    }
    problems.extend(checks([
        (name.len() <= 63, "name part must be no more than 63 characters"),
        (is_name(name), NAME_PART),
    ]));
    problems
}

/// The value of a label.
pub(crate) fn label_value(value: &str) -> Vec<String> {
    checks([
        (value.len() <= 63, "must be no more than 63 characters"),
        (value.is_empty() || is_name(value), LABEL_VALUE),
    ])
}

/// A key of a config map or a secret.
pub(crate) fn config_key(value: &str) -> Vec<String> {
    let valid = !value.is_empty() && value.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    let mut problems =
        checks([(value.len() <= 253, "must be no more than 253 characters"), (valid, CONFIG_KEY)]);
    match value {
        "." => problems.push("must not be '.'".to_owned()),
        ".." => problems.push("must not be '..'".to_owned()),
        _ if value.starts_with("..") => problems.push("must not start with '..'".to_owned()),
        _ => {}
    }
    problems
}

/// The name of an environment variable.
pub(crate) fn env_name(value: &str) -> Vec<String> {
    let valid = !value.is_empty() && value.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'=');
    checks([(valid, ENV_NAME)])
}

/// The name of a container's port: an IANA service name.
pub(crate) fn port_name(value: &str) -> Vec<String> {
    let alphabet = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    checks([
        (value.len() <= 15, "must be no more than 15 characters"),
        (
            value.bytes().all(alphabet),
            "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
        ),
        (value.bytes().any(|b| b.is_ascii_lowercase()), "must contain at least one letter (a-z)"),
        (!value.contains("--"), "must not contain consecutive hyphens"),
        (!value.starts_with('-') && !value.ends_with('-'), "must not begin or end with a hyphen"),
    ])
}

/// An address of either family, in canonical or any other readable form.
pub(crate) fn ip_address(value: &str) -> Vec<String> {
    checks([(
        value.parse::<std::net::IpAddr>().is_ok(),
        "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
    )])
}

/// Who makes volumes: a qualified name, whatever its capitals.
pub(crate) fn provisioner(value: &str) -> Vec<String> {
    qualified_name(&value.to_lowercase())
}

/// A name that stands for itself in a path, such as a role's (apimachinery `api/validation/path`).
pub(crate) fn path_segment(value: &str) -> Vec<String> {
    match value {
        "." | ".." => return vec![format!("may not be '{value}'")],
        _ => {}
    }
    checks([(!value.contains('/'), "may not contain '/'"), (!value.contains('%'), "may not contain '%'")])
}

/// An address in the one form that names it.
pub(crate) fn canonical_address(value: &str) -> Vec<String> {
    match value.parse::<std::net::IpAddr>() {
        Err(_) => ip_address(value),
        Ok(address) if address.to_string() == value => Vec::new(),
        Ok(address) => vec![format!("must be in canonical form (\"{address}\")")],
    }
}

/// An address range of either family.
pub(crate) fn cidr(value: &str) -> Vec<String> {
    let valid = value.parse::<ipnet::IpNet>().is_ok();
    checks([(valid, "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)")])
}

fn checks<const N: usize>(rows: [(bool, &str); N]) -> Vec<String> {
    rows.iter().filter(|(holds, _)| !holds).map(|(_, problem)| (*problem).to_owned()).collect()
}

fn is_label(value: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    edges(value, alphanumeric) && value.bytes().all(|b| alphanumeric(b) || b == b'-')
}

fn is_name(value: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_alphanumeric();
    edges(value, alphanumeric) && value.bytes().all(|b| alphanumeric(b) || b"-_.".contains(&b))
}

fn edges(value: &str, allowed: impl Fn(u8) -> bool) -> bool {
    let bytes = value.as_bytes();
    bytes.first().is_some_and(|b| allowed(*b)) && bytes.last().is_some_and(|b| allowed(*b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_their_syntax() {
        let rows: [(Syntax, &str, bool); 26] = [
            (dns_label, "web-1", true),
            (dns_label, "Web", false),
            (dns_label, "a.b", false),
            (dns_label, "-a", false),
            (dns_subdomain, "a.b-c.d", true),
            (dns_subdomain, "a..b", false),
            (dns_subdomain, "system:x", false),
            (dns_1035_label, "a1", true),
            (dns_1035_label, "1a", false),
            (qualified_name, "app", true),
            (qualified_name, "example.com/App_1.x", true),
            (qualified_name, "a/b/c", false),
            (qualified_name, "/a", false),
            (qualified_name, "a/", false),
            (qualified_name, "UPPER/a", false),
            (label_value, "", true),
            (label_value, "v1.2_3", true),
            (label_value, "-v", false),
            (config_key, "a.b-c_D", true),
            (config_key, "..", false),
            (config_key, "a b", false),
            (env_name, "MY.env-1", true),
            (env_name, "A=B", false),
            (port_name, "http", true),
            (port_name, "80", false),
            (port_name, "a--b", false),
        ];
        for (syntax, value, valid) in rows {
            assert_eq!(syntax(value).is_empty(), valid, "{value:?}: {:?}", syntax(value));
        }
        assert!(!dns_label(&"a".repeat(64)).is_empty());
        assert!(dns_subdomain(&format!("{}.b", "a".repeat(100))).is_empty());
    }
}
