//! The secret of a webhook, and the three forms in which a delivery proves that its sender knows it: GitHub's and Gitea's signatures of the
//! body (HMAC-SHA-256), and GitLab's header, which holds the secret itself.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use ring::hmac;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{Secret, secret_in, write_secret};
use crate::durable;

/// The headers that may hold a proof.
const GITHUB: &str = "x-hub-signature-256";
const GITEA: &str = "x-gitea-signature";
const GITLAB: &str = "x-gitlab-token";

/// The file in a mirror's directory.
const FILE: &str = "webhook";

/// The secret in a mirror's directory, if there is one.
///
/// # Errors
/// As [`read_secret`](super::read_secret). But the file may also belong to the owner of the directory: root's daemon compares the secret
/// with a delivery, and sends it to nobody.
pub fn read(directory: &Path) -> io::Result<Option<Secret>> {
    let owner = durable::stat_directory(directory).ok().map(|directory| directory.st_uid);
    let path = directory.join(FILE);
    secret_in(&path, durable::open_to_read(&path), &|file| durable::is_ours(file) || Some(file.uid()) == owner)
}

/// Makes a new secret of 160 random bits, and stores it.
///
/// # Errors
/// The operating system's.
pub fn make(directory: &Path) -> io::Result<Secret> {
    let mut bytes = [0; 20];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    let secret = Secret::new(bytes.iter().map(|byte| format!("{byte:02x}")).collect());
    write_secret(&directory.join(FILE), &secret)?;
    Ok(secret)
}

/// Whether a delivery brings a proof, right or wrong. `header` gives the value of a header.
pub fn is_signed<'h>(header: &dyn Fn(&str) -> Option<&'h str>) -> bool {
    [GITHUB, GITEA, GITLAB].iter().any(|name| header(name).is_some())
}

/// A delivery whose body comes piece by piece.
pub struct Delivery {
    secret: Option<Secret>,
    body: hmac::Context,
}

impl Delivery {
    /// Begins a delivery to a mirror with this secret.
    #[must_use]
    pub fn to(secret: Option<Secret>) -> Self {
        let known = secret.as_ref().map_or("", Secret::expose);
        let body = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, known.as_bytes()));
        Self { secret, body }
    }

    /// The next piece of the body.
    pub fn hear(&mut self, piece: &[u8]) {
        self.body.update(piece);
    }

    /// Whether one of the proofs is right. The check takes the same time if there is no secret.
    #[must_use]
    pub fn is_right<'h>(self, header: &dyn Fn(&str) -> Option<&'h str>) -> bool {
        let (known, expected) = (self.secret.as_ref().map_or("", Secret::expose), self.body.sign());
        let is_signature = |hex: &str| {
            let bytes: Option<Vec<u8>> = (0..hex.len())
                .step_by(2)
                .map(|at| hex.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok()))
                .collect();
            bool::from(bytes.unwrap_or_default().ct_eq(expected.as_ref()))
        };
        let is_same = |given: &str| bool::from(Sha256::digest(given).ct_eq(&Sha256::digest(known)));
        let github = header(GITHUB).and_then(|value| value.strip_prefix("sha256=")).is_some_and(is_signature);
        let gitea = header(GITEA).is_some_and(is_signature);
        let gitlab = header(GITLAB).is_some_and(is_same);
        self.secret.is_some() && (github || gitea || gitlab)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_of_proof_is_known_and_a_wrong_one_is_not() {
        // GitHub's documented example.
        const SECRET: &str = "It's a Secret to Everybody";
        let signature = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        let prefixed = format!("sha256={signature}");
        let right = |name: &'static str, value: &str| {
            let header = |asked: &str| (asked == name).then_some(value);
            assert!(is_signed(&header));
            let mut delivery = Delivery::to(Some(Secret::new(SECRET.into())));
            [&b"Hello,"[..], b" World!"].iter().for_each(|piece| delivery.hear(piece));
            delivery.is_right(&header)
        };
        assert!(right(GITHUB, &prefixed));
        assert!(right(GITEA, signature));
        assert!(right(GITLAB, SECRET));
        for (name, wrong) in [
            (GITHUB, signature),
            (GITHUB, "sha256="),
            (GITHUB, "sha256=é"),
            (GITEA, &signature[2..]),
            (GITLAB, "It's a Secret"),
            (GITLAB, ""),
        ] {
            assert!(!right(name, wrong), "{name}: {wrong}");
        }
        let none = Delivery::to(None);
        assert!(!none.is_right(&|asked| (asked == GITLAB).then_some("")), "a missing secret is not an empty secret");
    }
}
