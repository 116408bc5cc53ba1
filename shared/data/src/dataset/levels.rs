//! Interned names: a row holds a small number, the names are held once.

use sha2::{Digest, Sha256};
use std::collections::{BTreeSet, HashMap};

/// Stands for "this row has none".
const NONE: u32 = u32::MAX;

/// One optional name a row, interned: the distinct names sorted, an index a row.
#[derive(Clone, PartialEq, Eq)]
pub struct Levels {
    names: Vec<String>,
    codes: Vec<u32>,
}

impl Levels {
    /// Interns one optional name a row.
    pub(crate) fn new<S: AsRef<str>>(rows: impl IntoIterator<Item = Option<S>>) -> Self {
        let mut seen: HashMap<String, u32> = HashMap::new();
        let mut first = Vec::new();
        let mut codes = Vec::new();
        for name in rows {
            let Some(name) = name else {
                codes.push(NONE);
                continue;
            };
            let code = seen.get(name.as_ref()).copied().unwrap_or_else(|| {
                let code = first.len() as u32;
                first.push(name.as_ref().to_owned());
                seen.insert(name.as_ref().to_owned(), code);
                code
            });
            codes.push(code);
        }
        let mut order: Vec<u32> = (0..first.len() as u32).collect();
        order.sort_by(|&a, &b| first[a as usize].cmp(&first[b as usize]));
        let mut rank = vec![0; first.len()];
        for (new, &old) in order.iter().enumerate() {
            rank[old as usize] = new as u32;
        }
        for code in &mut codes {
            if *code != NONE {
                *code = rank[*code as usize];
            }
        }
        first.sort();
        Self { names: first, codes }
    }

    /// Rows, with and without a name.
    pub fn len(&self) -> usize {
        self.codes.len()
    }

    /// True without rows.
    pub fn is_empty(&self) -> bool {
        self.codes.is_empty()
    }

    /// The distinct names, sorted. A subset keeps the names of the whole.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Index into [`Levels::names`] of one row's name.
    pub fn code(&self, row: usize) -> Option<u32> {
        self.codes.get(row).copied().filter(|&code| code != NONE)
    }

    /// One row's name.
    pub fn get(&self, row: usize) -> Option<&str> {
        self.code(row).map(|code| self.names[code as usize].as_str())
    }

    /// The index of every row.
    pub fn codes(&self) -> impl Iterator<Item = Option<u32>> + '_ {
        self.codes.iter().map(|&code| (code != NONE).then_some(code))
    }

    /// The name of every row.
    pub fn iter(&self) -> impl Iterator<Item = Option<&str>> + '_ {
        self.codes().map(|code| code.map(|code| self.names[code as usize].as_str()))
    }

    /// The names that some row has.
    pub(crate) fn used(&self) -> BTreeSet<&str> {
        let mut used = vec![false; self.names.len()];
        self.codes().flatten().for_each(|code| used[code as usize] = true);
        self.names.iter().zip(used).filter(|(_, used)| *used).map(|(name, _)| name.as_str()).collect()
    }

    pub(crate) fn subset(&self, rows: &[usize]) -> Self {
        Self { names: self.names.clone(), codes: rows.iter().map(|&row| self.codes[row]).collect() }
    }

    /// Hashes the names, not the indices: two interned forms of the same rows are the same content.
    pub(super) fn hash_into(&self, hash: &mut Sha256) {
        for name in self.iter() {
            hash.update([u8::from(name.is_some())]);
            super::frame(hash, name.unwrap_or_default().as_bytes());
        }
    }
}
