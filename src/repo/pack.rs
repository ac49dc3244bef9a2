//! A small pack, made here: for the few objects of a usual push the start of `git pack-objects` costs more than the pack.
//!
//! What goes in: the commits between the new values and what the mirror has, and of each the trees and blobs that none of its
//! parents has at the same place. A parent is sent too, or it is a value of the mirror, which has all that belongs to it: so nothing
//! is left out that the mirror lacks. Objects are sent whole, without deltas. Whatever is not small, not here, or not plain is
//! left to git (`None`).

use std::collections::{HashMap, HashSet};
use std::io::Write;

use gix::object::Kind;
use gix::objs::TreeRefIter;
use gix::zlib::Compression;
use gix::zlib::stream::deflate;
use gix::{ObjectId, hash};

use super::{Repository, to_gix};
use crate::refs::Oid;

/// Most commits, most objects, and most bytes of them before compression.
const MOST_COMMITS: usize = 64;
const MOST_OBJECTS: usize = 256;
const MOST_BYTES: usize = 256 << 10;
/// Deepest tree.
const DEEPEST: usize = 64;

/// What goes in.
struct Small<'r> {
    repository: &'r gix::Repository,
    known: HashSet<ObjectId>,
    objects: Vec<(Kind, Vec<u8>)>,
    bytes: usize,
}

impl Repository {
    /// A pack of what `tips` have and the mirror, whose refs have the values `haves`, has not. `None` when it would not be small.
    #[must_use]
    pub fn small_pack(&self, tips: &[Oid], haves: &HashMap<Oid, u32>) -> Option<Vec<u8>> {
        let mut small = Small { repository: &self.inner, known: HashSet::new(), objects: Vec::new(), bytes: 0 };
        let is_have = |id: &hash::oid| haves.contains_key(&super::from_gix(id));
        let mut commits: Vec<ObjectId> = Vec::new();
        for tip in tips.iter().map(|tip| to_gix(*tip)).filter(|tip| !is_have(tip)) {
            commits.extend(small.peel(tip)?.filter(|commit| !is_have(commit)));
        }
        let mut next = 0;
        commits.sort_unstable();
        commits.dedup();
        while let Some(id) = commits.get(next).copied() {
            next += 1;
            if next > MOST_COMMITS {
                return None;
            }
            let commit = small.repository.try_find_object(id).ok()??.try_into_commit().ok()?;
            let tree = commit.tree_id().ok()?.detach();
            let parents: Vec<ObjectId> = commit.parent_ids().map(gix::Id::detach).collect();
            small.add(id, Kind::Commit, commit.detach().data)?;
            let mut bases = Vec::with_capacity(parents.len());
            for parent in parents {
                let base = small.repository.try_find_object(parent).ok()??.try_into_commit().ok()?;
                bases.push(base.tree_id().ok()?.detach());
                if !is_have(&parent) && !commits.contains(&parent) {
                    commits.push(parent);
                }
            }
            small.tree(tree, &bases, 0)?;
        }
        small.written()
    }
}

impl Small<'_> {
    /// Adds a tag, and returns the commit that the value is or peels to. Tags of trees and blobs are git's business.
    fn peel(&mut self, mut id: ObjectId) -> Option<Option<ObjectId>> {
        loop {
            let object = self.repository.try_find_object(id).ok()??;
            match object.kind {
                Kind::Commit => return Some(Some(id)),
                Kind::Tag => {
                    let target = object.clone().try_into_tag().ok()?.target_id().ok()?.detach();
                    if !self.known.contains(&id) {
                        self.add(id, Kind::Tag, object.detach().data)?;
                    }
                    id = target;
                }
                Kind::Tree | Kind::Blob => return None,
            }
        }
    }

    fn add(&mut self, id: ObjectId, kind: Kind, data: Vec<u8>) -> Option<()> {
        self.known.insert(id);
        self.bytes += data.len();
        self.objects.push((kind, data));
        (self.objects.len() <= MOST_OBJECTS && self.bytes <= MOST_BYTES).then_some(())
    }

    /// Adds a tree and what is below it, as far as none of `bases` has it at the same place.
    fn tree(&mut self, id: ObjectId, bases: &[ObjectId], depth: usize) -> Option<()> {
        if depth > DEEPEST {
            return None;
        }
        if bases.contains(&id) || self.known.contains(&id) {
            return Some(());
        }
        let data = self.data(id, Kind::Tree)?;
        let bases: Vec<Vec<u8>> = bases.iter().map(|base| self.data(*base, Kind::Tree)).collect::<Option<_>>()?;
        let hash = self.repository.object_hash();
        let entries = |data| TreeRefIter::from_bytes(data, hash).collect::<Result<Vec<_>, _>>().ok();
        let theirs: Vec<Vec<_>> = bases.iter().map(|base| entries(base)).collect::<Option<_>>()?;
        for entry in entries(&data)? {
            let named = theirs.iter().filter_map(|tree| tree.iter().find(|other| other.filename == entry.filename));
            let same: Vec<_> = named.collect();
            let oid = entry.oid.to_owned();
            if entry.mode.is_commit() || self.known.contains(&oid) || same.iter().any(|other| other.oid == entry.oid) {
                continue;
            }
            if entry.mode.is_tree() {
                let below: Vec<ObjectId> =
                    same.iter().filter(|other| other.mode.is_tree()).map(|other| other.oid.to_owned()).collect();
                self.tree(oid, &below, depth + 1)?;
            } else {
                let header = self.repository.try_find_header(oid).ok()??;
                if self.bytes as u64 + header.size() > MOST_BYTES as u64 {
                    return None;
                }
                let blob = self.data(oid, Kind::Blob)?;
                self.add(oid, Kind::Blob, blob)?;
            }
        }
        self.add(id, Kind::Tree, data)
    }

    fn data(&self, id: ObjectId, kind: Kind) -> Option<Vec<u8>> {
        let object = self.repository.try_find_object(id).ok()??;
        (object.kind == kind).then(|| object.detach().data)
    }

    /// The pack (gitformat-pack(5)): a header, each object with its type and length, and the checksum of all of it.
    fn written(self) -> Option<Vec<u8>> {
        let mut pack = b"PACK\0\0\0\x02".to_vec();
        pack.extend(u32::try_from(self.objects.len()).ok()?.to_be_bytes());
        for (kind, data) in &self.objects {
            let number = match kind {
                Kind::Commit => 1,
                Kind::Tree => 2,
                Kind::Blob => 3,
                Kind::Tag => 4,
            };
            // Four bits of the length beside the type, then seven at a time, the lowest first.
            let (mut rest, mut byte) = (data.len() >> 4, (number << 4) | (data.len() & 15) as u8);
            while rest > 0 {
                pack.push(byte | 0x80);
                (byte, rest) = ((rest & 0x7f) as u8, rest >> 7);
            }
            pack.push(byte);
            let mut deflated = deflate::Write::new(pack, Compression::DEFAULT);
            deflated.write_all(data).and_then(|()| deflated.flush()).ok()?;
            pack = deflated.into_inner();
        }
        let mut hasher = hash::hasher(self.repository.object_hash());
        hasher.update(&pack);
        pack.extend_from_slice(hasher.try_finalize().ok()?.as_slice());
        Some(pack)
    }
}
