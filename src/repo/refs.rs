//! Reading refs: all that are wanted, or one by its exact name.
//!
//! A listing may miss a ref that `git pack-refs` moves at the same moment. So a caller that acts on an absence must also ask
//! [`Repository::find_each`], which looks for the loose ref and then in packed refs.

use super::{Error, Repository, from_gix, is_refused, one_line};
use crate::refs::{Local, Oid, RefName};

/// The refs that were wanted.
#[derive(Debug, Default)]
pub struct Listing {
    /// Names and values, symbolic refs included.
    pub refs: Vec<(RefName, Local)>,
    /// Why the list may lack something; `None` when it is complete.
    pub incomplete: Option<String>,
}

impl Listing {
    /// The values of the refs that are not symbolic and can be read.
    pub fn values(&self) -> impl Iterator<Item = Oid> {
        self.refs.iter().filter_map(|(_, local)| if let Local::At(oid) = local { Some(*oid) } else { None })
    }
}

/// Whether the file system cannot hold a file of that name.
fn is_too_long(error: &gix::Error) -> bool {
    let kind = error.downcast_any_ref::<std::io::Error>().map(std::io::Error::kind);
    kind == Some(std::io::ErrorKind::InvalidFilename)
}

impl Repository {
    /// Lists the refs for which `is_wanted` holds.
    ///
    /// # Errors
    /// [`Error::Read`] when the store cannot be opened at all, or the operating system did not let us look.
    pub fn list(&self, mut is_wanted: impl FnMut(&RefName) -> bool) -> Result<Listing, Error> {
        if let Some(refs) = &self.by_git {
            let mut listing = refs.list()?;
            listing.refs.retain(|(name, _)| is_wanted(name));
            return Ok(listing);
        }
        let platform = self.inner.references().map_err(|error| self.unreadable("the refs", &error))?;
        let all = platform.all().map_err(|error| self.unreadable("the refs", &error))?;
        let mut listing = Listing::default();
        for reference in all {
            let reference = match reference {
                Ok(reference) => reference,
                Err(error) if is_refused(&error) => return Err(self.unreadable("the refs", &error)),
                Err(error) => {
                    listing.incomplete = Some(one_line(&error));
                    continue;
                }
            };
            let name = reference.name().as_bstr();
            let Some(name) = RefName::new(name) else {
                listing.incomplete = Some(format!("'{name}' is not a valid ref name"));
                continue;
            };
            if !is_wanted(&name) {
                continue;
            }
            let value = reference.target().try_id().map_or(Local::Symbolic, |oid| Local::At(from_gix(oid)));
            listing.refs.push((name, value));
        }
        Ok(listing)
    }

    /// Whether there is any ref at all, selected or not.
    ///
    /// # Errors
    /// [`Error::Read`] when the store cannot be opened.
    pub fn has_refs(&self) -> Result<bool, Error> {
        if let Some(refs) = &self.by_git {
            return refs.has_any();
        }
        let platform = self.inner.references().map_err(|error| self.unreadable("the refs", &error))?;
        let mut all = platform.all().map_err(|error| self.unreadable("the refs", &error))?;
        Ok(all.next().is_some())
    }

    /// Looks up refs by their exact names, and answers in their order.
    ///
    /// # Errors
    /// [`Error::Read`] when the operating system did not let us look.
    pub fn find_each(&self, names: &[&RefName]) -> Result<Vec<Local>, Error> {
        match &self.by_git {
            Some(refs) => refs.find(names),
            None => names.iter().map(|name| self.find_in_files(name)).collect(),
        }
    }

    /// Looks up one ref by its exact name. For several, use [`Repository::find_each`].
    ///
    /// # Errors
    /// As [`Repository::find_each`].
    pub fn find(&self, name: &RefName) -> Result<Local, Error> {
        Ok(self.find_each(&[name])?.pop().expect("one name has one answer"))
    }

    fn find_in_files(&self, name: &RefName) -> Result<Local, Error> {
        let Ok(full) = gix::refs::FullName::try_from(gix::bstr::BStr::new(name.as_bytes())) else {
            return Ok(Local::Unreadable);
        };
        match self.inner.try_find_reference(full.as_ref()) {
            Ok(None) => Ok(Local::Absent),
            Ok(Some(reference)) => {
                Ok(reference.target().try_id().map_or(Local::Symbolic, |oid| Local::At(from_gix(oid))))
            }
            Err(error) if is_too_long(&error) => self.find_packed(name, full.as_ref()),
            Err(error) if is_refused(&error) => Err(self.unreadable(&name.to_string(), &error)),
            Err(_) => Ok(Local::Unreadable),
        }
    }

    /// Looks up a ref whose name is too long for a file, so that only packed refs can hold it. A mirror that stores its refs in another way
    /// may have such names.
    fn find_packed(&self, name: &RefName, full: &gix::refs::FullNameRef) -> Result<Local, Error> {
        let packed = self.inner.refs.cached_packed_buffer();
        let packed = packed.map_err(|error| self.unreadable(&name.to_string(), &error))?;
        let Some(packed) = packed else { return Ok(Local::Absent) };
        Ok(match packed.try_find(full) {
            Ok(Some(found)) if found.name == full => Local::At(from_gix(&found.target())),
            Ok(_) => Local::Absent,
            Err(_) => Local::Unreadable,
        })
    }
}
