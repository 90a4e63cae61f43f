//! Lists that several workers have parts of, in pages: the topics, and the members of a topic.
//!
//! Each worker gives the first entries of its own after a certain one, in order. The first entries of the whole server
//! are among these, so pages can be merged, and a page is exact however many entries follow it.

use crate::registry::Fd;
use crate::system::codec::{Malformed, Reader, put_u16, put_u64};

/// The longest page of topics. Their names have at most 255 bytes.
pub const MAX_TOPICS_PAGE: usize = 4096;
/// The longest page of members.
pub const MAX_MEMBERS_PAGE: usize = 65_536;

/// A topic and its number of subscribers.
pub type TopicSize = (String, u64);

/// The longest page of members with what is known about them.
pub const MAX_PRESENCE_PAGE: usize = 4096;

/// A member of a topic, and what is known about it, as JSON.
pub type Member = (Fd, String);

/// Something that can be listed.
pub(crate) trait Entry: Sized {
    /// What entries are ordered by.
    type Order: Ord + ?Sized;

    /// The longest page.
    const MAX_PAGE: usize;

    /// Its place in the order.
    fn order(&self) -> &Self::Order;

    /// Adds another worker's part of the same entry.
    fn join(&mut self, other: Self);

    /// The memory that it takes.
    fn size(&self) -> usize;

    /// Appends it.
    fn encode(&self, out: &mut Vec<u8>);

    /// # Errors
    /// If there is none.
    fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed>;
}

impl Entry for TopicSize {
    type Order = str;
    const MAX_PAGE: usize = MAX_TOPICS_PAGE;

    fn order(&self) -> &str {
        &self.0
    }

    fn join(&mut self, other: Self) {
        self.1 += other.1;
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.0.len()
    }

    fn encode(&self, out: &mut Vec<u8>) {
        put_u64(out, self.1);
        put_u16(out, self.0.len() as u16);
        out.extend_from_slice(self.0.as_bytes());
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (count, length) = (reader.u64()?, reader.u16()?);
        Ok((reader.text(length.into())?.to_owned(), count))
    }
}

impl Entry for Fd {
    type Order = Self;
    const MAX_PAGE: usize = MAX_MEMBERS_PAGE;

    fn order(&self) -> &Self {
        self
    }

    fn join(&mut self, _: Self) {}

    fn size(&self) -> usize {
        size_of::<Self>()
    }

    fn encode(&self, out: &mut Vec<u8>) {
        put_u64(out, *self);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        reader.u64()
    }
}

impl Entry for Member {
    type Order = Fd;
    const MAX_PAGE: usize = MAX_PRESENCE_PAGE;

    fn order(&self) -> &Fd {
        &self.0
    }

    fn join(&mut self, _: Self) {}

    fn size(&self) -> usize {
        size_of::<Self>() + self.1.len()
    }

    fn encode(&self, out: &mut Vec<u8>) {
        put_u64(out, self.0);
        put_u16(out, self.1.len() as u16);
        out.extend_from_slice(self.1.as_bytes());
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (fd, length) = (reader.u64()?, reader.u16()?);
        Ok((fd, reader.text(length.into())?.to_owned()))
    }
}

/// A part of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// In order, without repetition.
    pub entries: Vec<T>,
    /// Whether more entries follow.
    pub goes_on: bool,
}

impl<T> Default for Page<T> {
    fn default() -> Self {
        Self { entries: Vec::new(), goes_on: false }
    }
}

impl<T> Page<T> {
    /// The same page of other entries.
    pub(crate) fn map<U>(self, into: impl FnMut(T) -> U) -> Page<U> {
        Page { entries: self.entries.into_iter().map(into).collect(), goes_on: self.goes_on }
    }
}

impl<T: Ord> Page<T> {
    /// The first `limit` of these entries, which may be in any order. Takes memory for a few times `limit` entries,
    /// however many there are.
    pub(crate) fn first(entries: impl Iterator<Item = T>, limit: usize) -> Self {
        let mut kept = Vec::new();
        for entry in entries {
            if kept.len() > 2 * limit + 1 {
                kept.select_nth_unstable(limit);
                kept.truncate(limit + 1);
            }
            kept.push(entry);
        }
        kept.sort_unstable();
        let goes_on = kept.len() > limit;
        kept.truncate(limit);
        Self { entries: kept, goes_on }
    }
}

impl<T> Page<T> {
    /// The first `limit` entries of both. Entries after the last one of a page that goes on are left out: that page's
    /// part of them is not known.
    pub(crate) fn merge(self, other: Self, limit: usize) -> Self
    where
        T: Entry,
    {
        let ends = [&self, &other].map(|page| if page.goes_on { page.entries.last() } else { None });
        let is_known = |entry: &T| ends.iter().flatten().all(|end| entry.order() <= end.order());
        let known = [&self, &other].map(|page| page.entries.iter().take_while(|entry| is_known(entry)).count());
        let mut goes_on = self.goes_on || other.goes_on;
        let mut left = self.entries.into_iter().take(known[0]).peekable();
        let mut right = other.entries.into_iter().take(known[1]).peekable();
        let mut entries: Vec<T> = Vec::new();
        loop {
            let takes_left = match (left.peek(), right.peek()) {
                (Some(one), Some(two)) => one.order() <= two.order(),
                (one, _) => one.is_some(),
            };
            let Some(entry) = (if takes_left { left.next() } else { right.next() }) else { break };
            let is_full = entries.len() == limit;
            match entries.last_mut() {
                Some(last) if last.order() == entry.order() => last.join(entry),
                _ if is_full => {
                    goes_on = true;
                    break;
                }
                _ => entries.push(entry),
            }
        }
        Self { entries, goes_on }
    }

    /// The memory that the entries take.
    pub(crate) fn size(&self) -> usize
    where
        T: Entry,
    {
        self.entries.iter().map(Entry::size).sum()
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>)
    where
        T: Entry,
    {
        out.push(self.goes_on.into());
        for entry in &self.entries {
            entry.encode(out);
        }
    }

    /// The page in the rest of these bytes.
    ///
    /// # Errors
    /// If there is none.
    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed>
    where
        T: Entry,
    {
        let mut page = Self { entries: Vec::new(), goes_on: reader.flag()? };
        while !reader.is_empty() {
            page.entries.push(T::decode(reader)?);
        }
        Ok(page)
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_map, btree_set, vec};
    use proptest::prelude::*;

    use super::*;

    fn page(entries: &[Fd], goes_on: bool) -> Page<Fd> {
        Page { entries: entries.to_vec(), goes_on }
    }

    #[test]
    fn what_a_page_does_not_reach_is_left_for_the_next_one() {
        let (short, long) = (page(&[1, 4], true), page(&[2, 3, 5, 6], false));
        assert_eq!(short.clone().merge(long.clone(), 10), page(&[1, 2, 3, 4], true));
        assert_eq!(long.merge(short, 3), page(&[1, 2, 3], true));
        assert_eq!(page(&[], false).merge(page(&[7], false), 1), page(&[7], false));
    }

    #[test]
    fn the_subscribers_of_a_topic_are_added_up() {
        let one = Page { entries: vec![("a".to_owned(), 1), ("b".to_owned(), 2)], goes_on: false };
        let other = Page { entries: vec![("b".to_owned(), 3)], goes_on: false };
        assert_eq!(one.merge(other, 2).entries, [("a".to_owned(), 1), ("b".to_owned(), 5)]);
    }

    proptest! {
        #[test]
        fn the_first_are_those_of_a_sorted_list(entries in btree_set(any::<u16>(), 0..200), limit in 1_usize..50) {
            let mut shuffled: Vec<u16> = entries.iter().copied().collect();
            shuffled.sort_by_key(|number| number.wrapping_mul(40_503));
            let page = Page::first(shuffled.into_iter(), limit);
            prop_assert_eq!(page.goes_on, entries.len() > limit);
            prop_assert!(page.entries.iter().eq(entries.iter().take(limit)));
        }

        #[test]
        fn the_pages_of_many_workers_together_are_the_whole_list(
            workers in vec(btree_map("[a-f]{1,3}", 1_u64..9, 0..40), 1..5),
            limit in 1_usize..20,
        ) {
            let mut expected = std::collections::BTreeMap::<String, u64>::new();
            for (name, count) in workers.iter().flatten() {
                *expected.entry(name.clone()).or_default() += count;
            }
            let mut found: Vec<TopicSize> = Vec::new();
            loop {
                let after = found.last().map(|(name, _)| name.clone()).unwrap_or_default();
                let pages = workers.iter().map(|worker| {
                    let later = worker.iter().filter(|(name, _)| **name > after);
                    Page::first(later.map(|(name, count)| (name.clone(), *count)), limit)
                });
                let page = pages.fold(Page::default(), |all, one| all.merge(one, limit));
                prop_assert!(page.entries.len() <= limit);
                prop_assert!(!page.goes_on || !page.entries.is_empty());
                found.extend(page.entries);
                if !page.goes_on {
                    break;
                }
            }
            prop_assert!(found.into_iter().eq(expected));
        }
    }
}
