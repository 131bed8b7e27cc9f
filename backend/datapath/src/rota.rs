//! Who is looked at in each turn of a data path, and who only now and then.

/// Looks in vain at a doorbell page until it is no longer hot.
const DOORBELL_PATIENCE: u32 = 20_000;
/// Others that are looked at in one turn.
const COLD: usize = 16;

/// Members by their indexes, which may be reused. Who had something of late is *hot*, and
/// is looked at in each turn until nothing was found so many times in a row.
#[derive(Debug)]
pub struct Rota {
    /// Looks in vain until a member is no longer hot.
    patience: u32,
    /// Of each member: how many of them are left.
    heat: Vec<u32>,
    hot: Vec<usize>,
    /// Where to go on among the others.
    cold: usize,
}

/// For doorbell pages.
impl Default for Rota {
    fn default() -> Self {
        Self::new(DOORBELL_PATIENCE)
    }
}

impl Rota {
    /// `patience`: looks in vain until a member is no longer hot.
    pub fn new(patience: u32) -> Self {
        Self {
            patience,
            heat: Vec::new(),
            hot: Vec::new(),
            cold: 0,
        }
    }

    /// A member more, which is not hot.
    pub fn enter(&mut self, member: usize) {
        if member >= self.heat.len() {
            self.heat.resize(member + 1, 0);
        }
        // So that nothing is allocated in a turn.
        self.hot.reserve(self.heat.len() - self.hot.len());
    }

    /// A member less.
    pub fn leave(&mut self, member: usize) {
        if let Some(heat) = self.heat.get_mut(member) {
            *heat = 0;
        }
        self.hot.retain(|hot| *hot != member);
    }

    /// Has a member looked at in each turn, for a while from now on.
    #[inline]
    pub fn warm(&mut self, member: usize) {
        if let Some(heat) = self.heat.get_mut(member) {
            if *heat == 0 {
                self.hot.push(member);
            }
            *heat = self.patience;
        }
    }

    /// The hot member at a place, from 0 on.
    #[inline]
    pub fn hot(&self, place: usize) -> Option<usize> {
        self.hot.get(place).copied()
    }

    /// The hot member at `place` was looked at. True: it is no longer hot, and another may
    /// stand at its place.
    #[inline]
    pub fn looked(&mut self, place: usize, found: bool) -> bool {
        let Some(member) = self.hot.get(place) else {
            return false;
        };
        let Some(heat) = self.heat.get_mut(*member) else {
            return false;
        };
        *heat = if found { self.patience } else { *heat - 1 };
        if *heat == 0 {
            self.hot.swap_remove(place);
        }
        *heat == 0
    }

    /// The next few, in turn; hot ones and indexes without a member are among them.
    #[inline]
    pub fn next_few(&mut self) -> impl Iterator<Item = usize> + use<> {
        let (first, end) = (self.cold, self.heat.len());
        let few = COLD.min(end);
        if end > 0 {
            self.cold = (first + few) % end;
        }
        (first..first + few).map(move |index| index % end)
    }

    /// Whether a member is hot.
    #[inline]
    pub fn is_hot(&self, member: usize) -> bool {
        self.heat.get(member).is_some_and(|heat| *heat > 0)
    }

    /// How many are hot.
    pub fn len(&self) -> usize {
        self.hot.len()
    }

    /// Whether nobody is hot.
    pub fn is_empty(&self) -> bool {
        self.hot.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hot(rota: &Rota) -> Vec<usize> {
        (0..).map_while(|place| rota.hot(place)).collect()
    }

    #[test]
    fn a_member_is_hot_until_nothing_was_found_so_often_in_a_row() {
        let mut rota = Rota::new(2);
        (0..3).for_each(|member| rota.enter(member));
        rota.warm(1);
        rota.warm(1);
        assert_eq!(hot(&rota), [1]);
        assert!(!rota.looked(0, false));
        assert!(!rota.looked(0, true));
        assert!(!rota.looked(0, false));
        assert!(rota.looked(0, false));
        assert!(rota.is_empty());
    }

    #[test]
    fn a_member_that_left_is_not_hot_nor_is_its_successor() {
        let mut rota = Rota::new(2);
        rota.enter(0);
        rota.warm(0);
        rota.leave(0);
        rota.enter(0);
        assert!(rota.is_empty() && !rota.is_hot(0));
        rota.warm(7);
        assert!(rota.is_empty(), "7 never entered");
    }

    #[test]
    fn everybody_is_looked_at_in_turn() {
        let mut rota = Rota::default();
        assert_eq!(rota.next_few().count(), 0);
        let all = 3 * COLD / 2;
        (0..all).for_each(|member| rota.enter(member));
        let seen: Vec<usize> = (0..3).flat_map(|_| rota.next_few()).collect();
        let twice: Vec<usize> = (0..all).chain(0..all).collect();
        assert_eq!(seen, twice);
    }
}
