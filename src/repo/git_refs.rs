//! Refs that gix cannot read (`reftable`), read with git. A list, or a lookup of any number of
//! names, starts one process. It starts a few if the tables change meanwhile, or if git does not
//! list a name. It never starts one per ref.
//!
//! gix reads objects, ancestry and configuration as usual. Guaranteed: a list is a snapshot, because git reads the tables as they were when
//! it began. We read the names in the tables too (see `reftable`), and so notice when git omits refs of a damaged table. Absent: every
//! write.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::gix_errors::is_refusal;
use super::reftable::{self, Stored};
use super::{Error, Listing};
use crate::process::{self, Child, git};
use crate::refs::{Local, Oid, RefName};
use crate::replies;

/// From this number of names on, listing every ref is cheaper than letting git compare each ref with each name.
const MANY: usize = 50;

/// How long git may take to end once it has listed all refs, and to answer what HEAD names.
const GRACE: Duration = Duration::from_secs(10);

/// How many times we try to read the tables, if some disappear meanwhile.
const MAX_TRIES: u32 = 5;

/// The branch in the stub file HEAD, which git keeps for programs that do not know reftable (see `reftable`).
const STUB: &str = "refs/heads/.invalid";

/// The refs of one repository.
#[derive(Clone, Debug)]
pub struct GitRefs {
    git_dir: PathBuf,
}

impl GitRefs {
    /// Those of the repository at `git_dir`.
    #[must_use]
    pub fn at(git_dir: &Path) -> Self {
        Self { git_dir: git_dir.to_owned() }
    }

    /// Whether the file HEAD with this content is the stub of a repository that stores its refs elsewhere.
    #[must_use]
    pub fn is_stub(head: &[u8]) -> bool {
        head.strip_prefix(b"ref:").is_some_and(|name| name.trim_ascii() == STUB.as_bytes())
    }

    /// All refs.
    ///
    /// # Errors
    /// [`Error::RefStorage`], when this git cannot read them; [`Error::Read`].
    pub fn list(&self) -> Result<Listing, Error> {
        let (mut listing, stored) = self.checked(&[])?;
        listing.refs.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        let is_listed = |name: &RefName| listing.refs.binary_search_by(|(other, _)| other.cmp(name)).is_ok();
        let missing: Vec<_> = stored.into_iter().filter(|(name, _)| !is_listed(name)).collect();
        for (name, stored) in missing {
            match stored {
                // git does not list a symbolic ref whose target does not exist.
                Stored::Symbolic => listing.refs.push((name, Local::Symbolic)),
                Stored::Value => listing.incomplete = Some(format!("git does not list '{name}', which is stored")),
            }
        }
        Ok(listing)
    }

    /// Whether there is any ref.
    ///
    /// # Errors
    /// As [`GitRefs::list`].
    pub fn has_any(&self) -> Result<bool, Error> {
        if !self.for_each_ref(&["--count=1"])?.refs.is_empty() {
            return Ok(true);
        }
        let (listing, stored) = self.checked(&["--count=1"])?;
        Ok(!listing.refs.is_empty() || listing.incomplete.is_some() || !stored.is_empty())
    }

    /// The values of `names`, in their order.
    ///
    /// # Errors
    /// As [`GitRefs::list`].
    pub fn find(&self, names: &[&RefName]) -> Result<Vec<Local>, Error> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        // A pattern without wildcards matches the ref of that name, and those below it. No ref name holds a wildcard.
        let texts: Vec<String> = names.iter().map(|name| name.text().into_owned()).collect();
        let is_text = names.iter().zip(&texts).all(|(name, text)| name.as_bytes() == text.as_bytes());
        let asked: Vec<&str> = match names.len() < MANY && is_text {
            true => texts.iter().map(String::as_str).collect(),
            false => Vec::new(),
        };
        // Git's list is enough if it has every name. Otherwise the tables are read too.
        let found = answers(names, &self.for_each_ref(&asked)?, &BTreeMap::new());
        if found.iter().all(|value| matches!(value, Local::At(_) | Local::Symbolic)) {
            return Ok(found);
        }
        let (listing, stored) = self.checked(&asked)?;
        Ok(answers(names, &listing, &stored))
    }

    /// The branch that HEAD names, whether or not it exists. `None` when HEAD is detached.
    ///
    /// # Errors
    /// As [`GitRefs::list`].
    pub fn head(&self) -> Result<Option<RefName>, Error> {
        let command = &mut git(&self.git_dir, &["symbolic-ref", "--quiet", "HEAD"]);
        match process::run("git symbolic-ref", command, b"", GRACE) {
            Ok(said) => Ok(RefName::new(said.trim_ascii())),
            // For a detached HEAD git prints nothing and exits with this status.
            Err(process::Error::Failed { message, status, .. }) if message.is_empty() && status.ends_with(" 1") => {
                Ok(None)
            }
            Err(error) => Err(self.unreadable("HEAD", &error.to_string())),
        }
    }

    /// The refs that git lists, and the refs that the tables hold both before and after the listing.
    fn checked(&self, asked: &[&str]) -> Result<(Listing, BTreeMap<RefName, Stored>), Error> {
        let mut tries = 0;
        loop {
            tries += 1;
            let mut listing = None;
            match self.try_checked(asked, &mut listing) {
                Ok(stored) => return Ok((listing.unwrap_or_default(), stored)),
                // git merged tables while we read them.
                Err(error) if is_gone(error.kind()) && tries < MAX_TRIES => {}
                // The system did not let us look. That says nothing about what is stored, so no ref counts as damaged.
                Err(error) if is_refusal(error.kind()) && !is_damage(error.kind()) => {
                    return Err(self.unreadable("the refs", &error.to_string()));
                }
                Err(error) => {
                    let listing = match listing {
                        Some(listing) => listing,
                        None => self.for_each_ref(asked)?,
                    };
                    let incomplete = Some(error.to_string());
                    return Ok((Listing { incomplete, ..listing }, BTreeMap::new()));
                }
            }
        }
    }

    fn try_checked(&self, asked: &[&str], listing: &mut Option<Listing>) -> io::Result<BTreeMap<RefName, Stored>> {
        let stack = reftable::stack(&self.git_dir)?;
        let mut names = reftable::names(&self.git_dir, &stack)?;
        *listing = Some(self.for_each_ref(asked).map_err(io::Error::other)?);
        let later = reftable::stack(&self.git_dir)?;
        if later != stack {
            let later = reftable::names(&self.git_dir, &later)?;
            names.retain(|name, _| later.contains_key(name));
        }
        // HEAD and its like are stored in the tables too.
        let refs = names.into_iter().filter(|(name, _)| name.starts_with(b"refs/"));
        Ok(refs.filter_map(|(name, stored)| Some((RefName::new(&name)?, stored))).collect())
    }

    fn for_each_ref(&self, asked: &[&str]) -> Result<Listing, Error> {
        let failed = |error: &dyn std::fmt::Display| self.unreadable("the refs", &error.to_string());
        let mut arguments = vec!["for-each-ref", "--format=%(objectname) %(refname) %(symref)"];
        arguments.extend(asked);
        let mut child =
            Child::start("git for-each-ref", &mut git(&self.git_dir, &arguments)).map_err(|error| failed(&error))?;
        drop(child.stdin());
        let mut said = Vec::new();
        child.stdout().read_to_end(&mut said).map_err(|error| failed(&error))?;
        let (status, message) = child.end(GRACE);
        if !status.map_err(|error| failed(&error))?.success() {
            return Err(failed(&message));
        }
        let mut listing = Listing { refs: Vec::new(), incomplete: message.lines().next().map(str::to_owned) };
        for line in said.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            match parsed(line) {
                Some(found) => listing.refs.push(found),
                None => listing.incomplete = Some(format!("git listed '{}'", String::from_utf8_lossy(line))),
            }
        }
        Ok(listing)
    }

    /// The error for git's `message`. A git that does not know reftable complains about the extension `refStorage`.
    fn unreadable(&self, what: &str, message: &str) -> Error {
        let (path, message) = (self.git_dir.clone(), message.replace('\n', " "));
        if replies::is_unknown_ref_storage(&message) {
            Error::RefStorage { path, message }
        } else {
            Error::Read { what: what.to_owned(), path, reason: message }
        }
    }
}

/// Whether a file is not there any more. On NFS the server may say so of a file that was there when it was looked up.
fn is_gone(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::NotFound | io::ErrorKind::StaleNetworkFileHandle)
}

/// Whether `tables.list` names no files, or git failed. Then git's own list shows what can be read.
fn is_damage(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{InvalidFilename, InvalidInput, IsADirectory, NotADirectory, Other};
    matches!(kind, InvalidFilename | InvalidInput | IsADirectory | NotADirectory | Other)
}

/// What is known of `names`, in their order.
fn answers(names: &[&RefName], listing: &Listing, stored: &BTreeMap<RefName, Stored>) -> Vec<Local> {
    let listed: BTreeMap<&RefName, Local> = listing.refs.iter().map(|(name, value)| (name, *value)).collect();
    let answer = |name: &&RefName| match (listed.get(name), stored.get(*name)) {
        (Some(value), _) => *value,
        (None, Some(Stored::Symbolic)) => Local::Symbolic,
        (None, None) if listing.incomplete.is_none() => Local::Absent,
        (None, _) => Local::Unreadable,
    };
    names.iter().map(answer).collect()
}

/// `OID NAME SYMREF`, where the last is mostly empty. No ref name holds a space.
fn parsed(line: &[u8]) -> Option<(RefName, Local)> {
    let mut parts = line.splitn(3, |byte| *byte == b' ');
    let (oid, name, target) = (parts.next()?, parts.next()?, parts.next()?);
    let value = if target.is_empty() { Local::At(Oid::from_hex(oid)?) } else { Local::Symbolic };
    Some((RefName::new(name)?, value))
}
