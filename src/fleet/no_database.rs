//! Replaces the module `database` in a program that was built without the feature `fleet`. Every
//! connection fails.

use std::time::Duration;

use serde::de::DeserializeOwned;

use super::{Access, Error};

pub(super) enum Database {}

impl Database {
    pub(super) fn connect(_access: &Access, _limit: Duration) -> Result<Self, Error> {
        Err(Error::NotBuilt)
    }

    pub(super) fn transaction<T>(&mut self, _act: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        match *self {}
    }

    pub(super) fn rows<T: DeserializeOwned>(&mut self, _sql: &str, _values: &[&str]) -> Result<Vec<T>, Error> {
        match *self {}
    }

    pub(super) fn run(&mut self, _sql: &str) -> Result<(), Error> {
        match *self {}
    }
}
