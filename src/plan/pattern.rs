//! Patterns for branches, tags, other refs and paths of repositories, with the rules of GitLab's wildcard protected branches. Only `*` is
//! special: it stands for any bytes, also none, and also `/`. A pattern matches the whole text and is case-sensitive.

/// A pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(Vec<Vec<u8>>);

impl Pattern {
    /// Takes any text; the empty pattern matches nothing.
    #[must_use]
    pub fn new(text: &[u8]) -> Self {
        Self(text.split(|byte| *byte == b'*').map(<[u8]>::to_vec).collect())
    }

    /// What every text that matches begins with: the pattern up to its first `*`.
    #[must_use]
    pub fn beginning(&self) -> &[u8] {
        &self.0[0]
    }

    /// Whether the pattern matches the whole name. The worst case takes time proportional to the product of both lengths.
    #[must_use]
    pub fn matches(&self, name: &[u8]) -> bool {
        let (first, rest) = self.0.split_first().expect("splitting yields at least one part");
        let Some((last, middle)) = rest.split_last() else {
            return !first.is_empty() && first == name;
        };
        let Some(mut left) = name.strip_prefix(&**first) else {
            return false;
        };
        for part in middle {
            let Some(at) = find(left, part) else { return false };
            left = &left[at + part.len()..];
        }
        left.ends_with(last)
    }
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    if part.is_empty() {
        return Some(0);
    }
    text.windows(part.len()).position(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_as_gitlab_does() {
        let table: [(&str, &[&str], &[&str]); 8] = [
            ("*-stable", &["production-stable", "a/b-stable", "-stable"], &["production-stable2", "x-STABLE"]),
            ("production/*", &["production/app", "production/a/b", "production/"], &["production", "staging/app"]),
            ("*gitlab*", &["gitlab", "gitlab/staging", "master/gitlab/production"], &["GitLab"]),
            ("pro.duc.tion/*", &["pro.duc.tion/x"], &["production/x", "proXducYtion/x"]),
            ("*/production/*", &["gitlab/production/b", "/production/"], &["production/b", "gitlab/production"]),
            (
                "pro*duction/*/gitlab/*",
                &["production/x/gitlab/y", "proXYZduction//gitlab/"],
                &["production/x/not-gitlab/y", "prodXYZuction/x/gitlab/y", "proXYZduction/gitlab/x/gitlab"],
            ),
            ("", &[], &["", "main"]),
            ("*", &["main", "a/b"], &[]),
        ];
        for (pattern, matching, others) in table {
            for name in matching {
                assert!(Pattern::new(pattern.as_bytes()).matches(name.as_bytes()), "{pattern} should match {name}");
            }
            for name in others {
                assert!(
                    !Pattern::new(pattern.as_bytes()).matches(name.as_bytes()),
                    "{pattern} should not match {name}"
                );
            }
        }
        assert!(Pattern::new(b"a*b").matches(b"a\xff\xfeb"));
        assert!(!Pattern::new(b"aa*aa").matches(b"aaa"));
    }
}
