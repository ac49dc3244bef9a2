//! A small pack, made in process: for the few objects of a usual push, starting `git pack-objects` takes longer than making the pack.
//!
//! It contains the commits that the mirror lacks, with their trees and blobs, and the tags among the new values. It leaves out objects that
//! a parent has in the same directory, and objects that a parent on the mirror has in any directory that changes. Each parent is either
//! sent too or complete on the mirror, so nothing is missing. Objects are stored whole, without deltas. Anything large, missing or unusual
//! is left to git (`None`).

use std::collections::{HashMap, HashSet};
use std::io::Write;

use gix::object::Kind;
use gix::objs::{TreeRefIter, tree};
use gix::zlib::Compression;
use gix::zlib::stream::deflate;
use gix::{ObjectId, hash};

use super::{Repository, to_gix};
use crate::refs::Oid;

/// The limits of a small pack: commits, objects, and bytes of all objects before compression.
const MAX_COMMITS: usize = 64;
const MAX_OBJECTS: usize = 256;
const MAX_BYTES: usize = 256 << 10;
/// Deepest tree.
const MAX_DEPTH: usize = 64;

/// What goes in.
struct Small<'r> {
    repository: &'r gix::Repository,
    known: HashSet<ObjectId>,
    /// What parents on the mirror have in the directories that change.
    held: HashSet<ObjectId>,
    objects: Vec<(Kind, Vec<u8>)>,
    bytes: usize,
}

impl Repository {
    /// A pack of the objects that `tips` need and that a mirror with the values `haves` lacks. `None` when it would not be small.
    #[must_use]
    pub fn small_pack(&self, tips: &[Oid], haves: &HashMap<Oid, u32>) -> Option<Vec<u8>> {
        let mut small = Small {
            repository: &self.inner,
            known: HashSet::new(),
            held: HashSet::new(),
            objects: Vec::new(),
            bytes: 0,
        };
        let is_have = |id: &hash::oid| haves.contains_key(&super::from_gix(id));
        let mut commits: Vec<ObjectId> = Vec::new();
        for tip in tips.iter().map(|tip| to_gix(*tip)).filter(|tip| !is_have(tip)) {
            commits.extend(Some(small.peel(tip)?).filter(|commit| !is_have(commit)));
        }
        commits.sort_unstable();
        commits.dedup();
        let mut trees = Vec::new();
        let new = self.new_commits(&commits, haves, MAX_COMMITS)?;
        for id in new.iter().copied() {
            let commit = small.repository.try_find_object(id).ok()??.try_into_commit().ok()?;
            let tree = commit.tree_id().ok()?.detach();
            let (mut bases, mut edges) = (Vec::new(), Vec::new());
            for parent in commit.parent_ids().map(gix::Id::detach) {
                let base = small.repository.try_find_object(parent).ok()??.try_into_commit().ok()?;
                let base = base.tree_id().ok()?.detach();
                edges.extend((!new.contains(&parent)).then_some(base));
                bases.push(base);
            }
            small.add(id, Kind::Commit, commit.detach().data)?;
            trees.push((tree, bases, edges));
        }
        // If the mirror has a parent, it has all objects of that parent. These need not be sent, even if they now have another name.
        for (tree, _, edges) in trees.iter().filter(|(_, _, edges)| !edges.is_empty()) {
            small.hold(*tree, edges, 0)?;
        }
        for (tree, bases, _) in &trees {
            small.tree(*tree, bases, 0)?;
        }
        small.written()
    }
}

/// The trees that `bases` have in the place of `entry`.
fn same_place(bases: &[Vec<tree::Entry>], entry: &tree::Entry) -> Vec<ObjectId> {
    let named = bases.iter().filter_map(|base| base.iter().find(|other| other.filename == entry.filename));
    named.filter(|other| other.mode.is_tree()).map(|other| other.oid).collect()
}

impl Small<'_> {
    /// Adds the tags on the way, and returns the commit that the value is or peels to. `None` for one that is or peels to a tree or blob,
    /// because that is left to git.
    fn peel(&mut self, mut id: ObjectId) -> Option<ObjectId> {
        loop {
            let object = self.repository.try_find_object(id).ok()??;
            match object.kind {
                Kind::Commit => return Some(id),
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
        (self.objects.len() <= MAX_OBJECTS && self.bytes <= MAX_BYTES).then_some(())
    }

    /// Notes what `bases` have in the directories in which the tree differs from all of them.
    fn hold(&mut self, id: ObjectId, bases: &[ObjectId], depth: usize) -> Option<()> {
        if depth > MAX_DEPTH {
            return None;
        }
        if bases.contains(&id) {
            return Some(());
        }
        let theirs = self.entries_of(bases)?;
        self.held.extend(theirs.iter().flatten().map(|entry| entry.oid));
        for entry in self.entries(id)?.iter().filter(|entry| entry.mode.is_tree()) {
            self.hold(entry.oid, &same_place(&theirs, entry), depth + 1)?;
        }
        Some(())
    }

    /// Adds a tree and everything below it, except objects that are held or that one of `bases` has in the same directory.
    fn tree(&mut self, id: ObjectId, bases: &[ObjectId], depth: usize) -> Option<()> {
        if depth > MAX_DEPTH {
            return None;
        }
        if bases.contains(&id) || self.known.contains(&id) || self.held.contains(&id) {
            return Some(());
        }
        let theirs = self.entries_of(bases)?;
        let here: HashSet<ObjectId> = theirs.iter().flatten().map(|entry| entry.oid).collect();
        for entry in self.entries(id)? {
            let is_there = [&self.known, &self.held, &here].iter().any(|set| set.contains(&entry.oid));
            if is_there || entry.mode.is_commit() {
                continue;
            }
            if entry.mode.is_tree() {
                self.tree(entry.oid, &same_place(&theirs, &entry), depth + 1)?;
            } else {
                let header = self.repository.try_find_header(entry.oid).ok()??;
                if self.bytes as u64 + header.size() > MAX_BYTES as u64 {
                    return None;
                }
                let blob = self.data(entry.oid, Kind::Blob)?;
                self.add(entry.oid, Kind::Blob, blob)?;
            }
        }
        let data = self.data(id, Kind::Tree)?;
        self.add(id, Kind::Tree, data)
    }

    fn entries(&self, tree: ObjectId) -> Option<Vec<tree::Entry>> {
        let data = self.data(tree, Kind::Tree)?;
        let entries = TreeRefIter::from_bytes(&data, self.repository.object_hash());
        entries.map(|entry| entry.ok().map(Into::into)).collect()
    }

    fn entries_of(&self, trees: &[ObjectId]) -> Option<Vec<Vec<tree::Entry>>> {
        trees.iter().map(|tree| self.entries(*tree)).collect()
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
