//! Numbers for the vertices of a lattice, in the order in which they are first met.
//!
//! A hash table of flat storage; what its keys mean is for [`super::lattice`] to say.

/// Marks a free slot; no vertex has this number.
const FREE: u32 = u32::MAX;

/// A power of two.
const FIRST_SLOTS: usize = 1024;

/// Vertices by their keys.
pub(super) struct Vertices {
    keys: Vec<i64>,
    /// A power of two of slots, at least half of them free.
    slots: Vec<Slot>,
    /// By how much a hash is shifted down to number a slot.
    shift: u32,
}

#[derive(Clone, Copy)]
struct Slot {
    key: i64,
    vertex: u32,
}

impl Vertices {
    /// An empty table. It starts small, because one that fits the nearest cache is worth more than
    /// never growing.
    pub(super) fn new() -> Self {
        Self {
            keys: Vec::new(),
            slots: vec![Slot { key: 0, vertex: FREE }; FIRST_SLOTS],
            shift: u64::BITS - FIRST_SLOTS.trailing_zeros(),
        }
    }

    /// The keys of all vertices, by number.
    pub(super) fn keys(&self) -> &[i64] {
        &self.keys
    }

    /// The number of the vertex with this key, if it is there.
    pub(super) fn find(&self, key: i64) -> Option<u32> {
        let slot = self.slots[self.slot(key)];
        (slot.vertex != FREE).then_some(slot.vertex)
    }

    /// The number of the vertex with this key, which is added if it is not there.
    pub(super) fn find_or_add(&mut self, key: i64) -> u32 {
        let place = self.slot(key);
        let found = self.slots[place].vertex;
        if found != FREE {
            return found;
        }
        let vertex = self.keys.len() as u32;
        self.slots[place] = Slot { key, vertex };
        self.keys.push(key);
        if 2 * self.keys.len() > self.slots.len() {
            self.grow();
        }
        vertex
    }

    /// The slot with this key, or the free one where it belongs.
    fn slot(&self, key: i64) -> usize {
        // Fibonacci hashing: the golden ratio spreads keys that differ in few bits.
        let hash = (key as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> self.shift;
        let mut place = hash as usize;
        loop {
            let slot = &self.slots[place];
            if slot.vertex == FREE || slot.key == key {
                return place;
            }
            place = (place + 1) & (self.slots.len() - 1);
        }
    }

    fn grow(&mut self) {
        self.slots = vec![Slot { key: 0, vertex: FREE }; 2 * self.slots.len()];
        self.shift -= 1;
        for (vertex, &key) in self.keys.iter().enumerate() {
            let place = self.slot(key);
            self.slots[place] = Slot { key, vertex: vertex as u32 };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vertices_keep_their_numbers_while_the_table_grows() {
        let mut vertices = Vertices::new();
        let keys: Vec<i64> = (-5000..5000).map(|number| number * 4096 + number % 6).collect();
        for (vertex, &key) in keys.iter().enumerate() {
            assert_eq!(vertices.find(key), None);
            assert_eq!(vertices.find_or_add(key), vertex as u32);
            assert_eq!(vertices.find_or_add(keys[vertex / 2]), vertex as u32 / 2);
        }
        assert_eq!(vertices.keys(), keys);
        assert!(
            keys.iter().enumerate().all(|(vertex, &key)| vertices.find(key) == Some(vertex as u32))
        );
    }
}
