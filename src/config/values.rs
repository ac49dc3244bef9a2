//! Checks of single values. Most say what is wrong with a value; `is_name` only says whether it is right. Pure.

use std::path::Path;

use super::server::{Placed, expand};
use crate::wire::Address;

/// Longest `mirror_branch_regex`, in characters (GitLab's limit).
const MAX_REGEX: usize = 255;
/// Largest compiled `mirror_branch_regex`, in bytes.
const MAX_COMPILED: usize = 1 << 20;

/// A command is an array: the program by its absolute path, then its arguments. No shell reads it.
pub(super) fn check_command(command: &[String], key: &str) -> Result<(), String> {
    match command {
        [program, arguments @ ..] if Path::new(program).is_absolute() => {
            match arguments.iter().find(|a| a.contains('\0')) {
                None => Ok(()),
                Some(_) => Err(format!("{key}: an argument has a null byte in it")),
            }
        }
        _ => {
            Err("a command is an array that begins with the absolute path of a program: [\"/usr/bin/x\", \"-v\"]"
                .into())
        }
    }
}

/// Whether a mirror can have this name. The name is also the name of a directory.
pub(super) fn is_name(name: &str) -> bool {
    name.len() <= 64
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

pub(super) fn check_url(url: &str) -> Result<(), String> {
    // A template is checked with sample values in place of its placeholders.
    let sample = Placed { path: "path".into(), name: "name".into() };
    let (address, in_url) = crate::wire::parse(&expand(url, &sample)).map_err(|refused| refused.to_string())?;
    if in_url.secret.is_some() {
        return Err("the URL holds a password, which does not belong in this file; remove it and use \
                    'git mirror-push set NAME --url URL', which stores it separately"
            .into());
    }
    match address {
        Address::Local(path) if !path.is_absolute() => Err("a path must be absolute here".into()),
        _ => Ok(()),
    }
}

/// The proxy's URL appears in messages and on the command line of `git remote-https`, so it must not have a password.
pub(super) fn check_proxy(proxy: &str) -> Result<(), String> {
    let authority =
        proxy.split_once("://").map_or(proxy, |(_, rest)| rest).split(['/', '?', '#']).next().unwrap_or_default();
    match authority.rsplit_once('@') {
        Some((user, _)) if user.contains(':') => {
            Err("the proxy's URL holds a password, which does not belong in this file; \
            put the URL into the environment instead (http_proxy, https_proxy)"
                .into())
        }
        _ => Ok(()),
    }
}

pub(super) fn check_push_option(option: &str) -> Result<(), String> {
    match option.len() > 1024 || option.contains(['\n', '\0']) {
        true => Err("a push option is one line of at most 1024 bytes".into()),
        false => Ok(()),
    }
}

/// `mirror_branch_regex`, compiled.
#[derive(Clone, Debug)]
pub struct BranchRegex(regex::bytes::Regex);

impl BranchRegex {
    /// Compiles an expression.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(text: &str) -> Result<Self, String> {
        if text.chars().count() > MAX_REGEX {
            return Err(format!("mirror_branch_regex is longer than {MAX_REGEX} characters"));
        }
        // People whom we do not trust may write the expression, and a short one can need much memory once it is compiled.
        let compiled = regex::bytes::RegexBuilder::new(text).size_limit(MAX_COMPILED).build();
        compiled.map(Self).map_err(|error| {
            let why = error.to_string();
            let why = why.lines().next_back().unwrap_or_default().trim();
            let why = why.strip_prefix("error: ").unwrap_or(why);
            format!("mirror_branch_regex is not a valid regex (RE2 syntax): {why}")
        })
    }

    /// The expression.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The compiled expression.
    #[must_use]
    pub fn compiled(&self) -> regex::bytes::Regex {
        self.0.clone()
    }
}

/// Whether a text can be `mirror_branch_regex`.
///
/// # Errors
/// What is wrong with it.
pub fn check_branch_regex(text: &str) -> Result<(), String> {
    BranchRegex::new(text).map(drop)
}

pub(super) fn check_refspec(pattern: &str) -> Result<(), String> {
    let stem = pattern.replace('*', "x");
    if let Some(left_out) = stem.strip_prefix('^') {
        let fix = "write it like \"^refs/heads/private/*\"";
        let is_name = crate::refs::RefName::new(left_out.as_bytes()).is_some();
        return if is_name { Ok(()) } else { Err(format!("'{pattern}' leaves no refs out; {fix}")) };
    }
    match crate::refs::RefName::new(stem.as_bytes()) {
        None => Err(format!("'{pattern}' is not a namespace; write it like \"refs/notes/*\"")),
        Some(name) if name.branch().is_some() || name.tag().is_some() => {
            Err(format!("'{pattern}' is among the branches or tags, which have keys of their own"))
        }
        Some(_) => Ok(()),
    }
}

/// Refuses the options in `REFUSED`: they run a program, load a library or another configuration file, switch strict host key checking off,
/// or let ssh ask questions. Also refuses a text that does not begin with a keyword, has no `=`, or has more than one line.
pub(super) fn check_ssh_option(option: &str) -> Result<(), String> {
    const REFUSED: [&str; 14] = [
        "proxycommand",
        "localcommand",
        "permitlocalcommand",
        "knownhostscommand",
        "remotecommand",
        "pkcs11provider",
        "smartcarddevice",
        "securitykeyprovider",
        "xauthlocation",
        "include",
        "stricthostkeychecking",
        "verifyhostkeydns",
        "nohostauthenticationforlocalhost",
        "batchmode",
    ];
    let keyword = option.split(['=', ' ', '\t']).next().unwrap_or_default().to_ascii_lowercase();
    if !option.contains('=') || !keyword.bytes().all(|byte| byte.is_ascii_alphanumeric()) || keyword.is_empty() {
        return Err(format!("'{}' is not an ssh option; write it like \"Compression=yes\"", option.escape_debug()));
    }
    if option.contains('\n') {
        return Err(format!("the ssh option '{keyword}' has more than one line"));
    }
    if REFUSED.contains(&&*keyword) {
        return Err(format!("the ssh option '{keyword}' is not allowed here"));
    }
    Ok(())
}
