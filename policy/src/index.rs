//! A tenant's rules, compiled so that the first match is found without looking at each rule.
//!
//! Each endpoint keeps the set of rules whose `from` means it and the set whose `to` means it;
//! each QP type and each service keep theirs. The rule that decides is the smallest member of
//! the intersection. Invariant: the answer is that of asking rule after rule
//! ([`crate::rule::Rule::mismatch`]), which the tests hold against it.

use std::ops::Bound;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::{
    address::VirtualAddress,
    model::Endpoint,
    rule::{PortSpace, Rule, Selector, Service, ServiceMatch},
    sets::QpType,
};

const WORD: u32 = u64::BITS;

/// A set of entry numbers: words that are not zero, in ascending order.
#[derive(Debug, Clone, Default)]
struct Sparse(Vec<(u32, u64)>);

impl Sparse {
    /// Adds `bit`, which is not smaller than any member.
    fn push(&mut self, bit: u32) {
        let (word, mask) = (bit / WORD, 1 << (bit % WORD));
        match self.0.last_mut() {
            Some((last, bits)) if *last == word => *bits |= mask,
            _ => self.0.push((word, mask)),
        }
    }

    fn word(&self, word: u32) -> u64 {
        self.0
            .binary_search_by_key(&word, |(at, _)| *at)
            .ok()
            .and_then(|i| self.0.get(i))
            .map_or(0, |(_, bits)| *bits)
    }
}

/// A set of entry numbers, a bit for each.
#[derive(Debug, Clone, Default)]
struct Dense(Vec<u64>);

impl Dense {
    fn push(&mut self, bit: u32) {
        let word = (bit / WORD) as usize;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        if let Some(bits) = self.0.get_mut(word) {
            *bits |= 1 << (bit % WORD);
        }
    }

    fn word(&self, word: u32) -> u64 {
        self.0.get(word as usize).copied().unwrap_or(0)
    }
}

/// The entries that speak of a port space: of all its ports, or of some.
#[derive(Debug, Clone, Default)]
struct Ports {
    all: Dense,
    /// First port of each interval within which the same entries match, with those entries.
    some: Vec<(u16, Sparse)>,
}

impl Ports {
    fn at(&self, port: u16) -> Option<&Sparse> {
        let after = self.some.partition_point(|(first, _)| *first <= port);
        self.some.get(after.checked_sub(1)?).map(|(_, set)| set)
    }

    /// `ranges` in ascending order of entries.
    fn build(all: Dense, ranges: &[(u32, u16, u16)]) -> Self {
        let mut some: BTreeMap<u16, Sparse> = BTreeMap::new();
        for (_, first, last) in ranges {
            some.entry(*first).or_default();
            last.checked_add(1)
                .map(|next| some.entry(next).or_default());
        }
        for (entry, first, last) in ranges {
            for (_, set) in some.range_mut(*first..=*last) {
                set.push(*entry);
            }
        }
        Self {
            all,
            some: some.into_iter().collect(),
        }
    }
}

/// The compiled rules of one tenant.
#[derive(Debug, Clone, Default)]
pub(crate) struct RuleIndex {
    /// The rule behind each entry; a rule that goes both ways has two entries.
    entries: Vec<u32>,
    /// By endpoint: the entries whose `from` means it.
    from: Vec<Sparse>,
    /// By endpoint: the entries whose `to` means it.
    to: Vec<Sparse>,
    qp_types: Vec<Dense>,
    verbs: Dense,
    rdma_cm: Vec<Ports>,
}

/// What was learnt about the rules while compiling them.
pub(crate) struct Compiled {
    pub(crate) index: RuleIndex,
    /// By rule: the endpoints that `from` and `to` mean, ascending.
    pub(crate) meant: Vec<(Vec<usize>, Vec<usize>)>,
}

impl RuleIndex {
    pub(crate) fn build(endpoints: &[Endpoint], rules: &[Rule]) -> Compiled {
        let finder = Finder::new(endpoints);
        let meant: Vec<_> = rules
            .iter()
            .map(|rule| (finder.find(&rule.from), finder.find(&rule.to)))
            .collect();

        let mut index = Self {
            from: vec![Sparse::default(); endpoints.len()],
            to: vec![Sparse::default(); endpoints.len()],
            qp_types: vec![Dense::default(); QpType::ALL.len()],
            ..Self::default()
        };
        let mut whole = vec![Dense::default(); PortSpace::ALL.len()];
        let mut ranges = vec![Vec::new(); PortSpace::ALL.len()];
        for (number, (rule, (from, to))) in (0u32..).zip(rules.iter().zip(&meant)) {
            let directions = [Some((from, to)), rule.both_ways.then_some((to, from))];
            for (from, to) in directions.into_iter().flatten() {
                let entry = u32::try_from(index.entries.len()).unwrap_or(u32::MAX);
                index.entries.push(number);
                for (sets, members) in [(&mut index.from, from), (&mut index.to, to)] {
                    for slot in members {
                        if let Some(set) = sets.get_mut(*slot) {
                            set.push(entry);
                        }
                    }
                }
                for qp_type in rule.qp_types.iter() {
                    if let Some(set) = index.qp_types.get_mut(qp_type as usize) {
                        set.push(entry);
                    }
                }
                for service in &rule.services {
                    if matches!(service, ServiceMatch::Any | ServiceMatch::Verbs) {
                        index.verbs.push(entry);
                    }
                    for (space, (whole, ranges)) in
                        PortSpace::ALL.iter().zip(whole.iter_mut().zip(&mut ranges))
                    {
                        match service {
                            ServiceMatch::Any => whole.push(entry),
                            ServiceMatch::RdmaCm {
                                space: asked,
                                ports,
                            } if asked.is_none_or(|asked| asked == *space) => {
                                ranges.push((entry, *ports.start(), *ports.end()));
                            }
                            _ => {}
                        }
                    }
                }
            }
        }
        index.rdma_cm = whole
            .into_iter()
            .zip(&ranges)
            .map(|(whole, ranges)| Ports::build(whole, ranges))
            .collect();
        Compiled { index, meant }
    }

    /// Adds one more endpoint, behind the others.
    pub(crate) fn push(&mut self, endpoint: &Endpoint, rules: &[Rule]) {
        let (from, to) = Self::entries_of(endpoint, rules);
        self.from.push(from);
        self.to.push(to);
    }

    /// Looks again at an endpoint that has changed.
    pub(crate) fn update(&mut self, slot: usize, endpoint: &Endpoint, rules: &[Rule]) {
        let (from, to) = Self::entries_of(endpoint, rules);
        if let (Some(in_from), Some(in_to)) = (self.from.get_mut(slot), self.to.get_mut(slot)) {
            (*in_from, *in_to) = (from, to);
        }
    }

    /// Removes an endpoint; the last one takes its place.
    pub(crate) fn swap_remove(&mut self, slot: usize) {
        if slot < self.from.len() && slot < self.to.len() {
            self.from.swap_remove(slot);
            self.to.swap_remove(slot);
        }
    }

    /// The entries whose `from`, and those whose `to`, mean the endpoint.
    fn entries_of(endpoint: &Endpoint, rules: &[Rule]) -> (Sparse, Sparse) {
        let (mut from, mut to) = (Sparse::default(), Sparse::default());
        let mut entry = 0;
        for rule in rules {
            let meant = |selectors: &[Selector]| selectors.iter().any(|s| s.matches(endpoint));
            let (in_from, in_to) = (meant(&rule.from), meant(&rule.to));
            let directions = [
                Some((in_from, in_to)),
                rule.both_ways.then_some((in_to, in_from)),
            ];
            for (in_from, in_to) in directions.into_iter().flatten() {
                if in_from {
                    from.push(entry);
                }
                if in_to {
                    to.push(entry);
                }
                entry += 1;
            }
        }
        (from, to)
    }

    /// The number of the first rule that matches a connection between two endpoints.
    pub(crate) fn first_match(
        &self,
        from: usize,
        to: usize,
        qp_type: QpType,
        service: Service,
    ) -> Option<usize> {
        self.matches(from, to, Some(qp_type), Some(service)).next()
    }

    /// The numbers of the rules that speak of the two endpoints at all, ascending.
    pub(crate) fn between(&self, from: usize, to: usize) -> impl Iterator<Item = usize> + '_ {
        self.matches(from, to, None, None)
    }

    fn matches(
        &self,
        from: usize,
        to: usize,
        qp_type: Option<QpType>,
        service: Option<Service>,
    ) -> impl Iterator<Item = usize> + '_ {
        let mut left = self.from.get(from).map_or(&[][..], |set| &set.0);
        let mut right = self.to.get(to).map_or(&[][..], |set| &set.0);
        let by_type = qp_type.map(|qp_type| self.qp_types.get(qp_type as usize));
        let ports = match service {
            Some(Service::RdmaCm { space, port }) => self
                .rdma_cm
                .get(space as usize)
                .map(|ports| (&ports.all, ports.at(port))),
            _ => None,
        };
        let mut pending = (0u32, 0u64);
        std::iter::from_fn(move || {
            loop {
                if pending.1 != 0 {
                    let bit = pending.1.trailing_zeros();
                    pending.1 &= pending.1 - 1;
                    let entry = pending.0 * WORD + bit;
                    return self.entries.get(entry as usize).map(|rule| *rule as usize);
                }
                let (&(a, in_from), &(b, in_to)) = (left.first()?, right.first()?);
                if a < b {
                    left = left.get(1..)?;
                    continue;
                }
                if b < a {
                    right = right.get(1..)?;
                    continue;
                }
                left = left.get(1..)?;
                right = right.get(1..)?;
                let mut bits = in_from & in_to;
                if let (Some(set), true) = (by_type, bits != 0) {
                    bits &= set.map_or(0, |set| set.word(a));
                }
                if let (Some(service), true) = (service, bits != 0) {
                    bits &= match (service, ports) {
                        (Service::Verbs, _) => self.verbs.word(a),
                        (_, Some((all, some))) => all.word(a) | some.map_or(0, |set| set.word(a)),
                        (_, None) => 0,
                    };
                }
                pending = (a, bits);
            }
        })
    }
}

/// Finds the endpoints that selectors mean, at a cost near to their number.
struct Finder<'a> {
    endpoints: &'a [Endpoint],
    by_name: HashMap<&'a str, Vec<usize>>,
    by_address: BTreeMap<VirtualAddress, usize>,
    by_label: HashMap<(&'a str, &'a str), Vec<usize>>,
}

impl<'a> Finder<'a> {
    fn new(endpoints: &'a [Endpoint]) -> Self {
        let mut by_label: HashMap<(&str, &str), Vec<usize>> = HashMap::new();
        for (slot, endpoint) in endpoints.iter().enumerate() {
            for (key, value) in &endpoint.labels {
                by_label.entry((key, value)).or_default().push(slot);
            }
        }
        let mut by_name: HashMap<&str, Vec<usize>> = HashMap::new();
        let mut by_address = BTreeMap::new();
        for (slot, endpoint) in endpoints.iter().enumerate() {
            let names = [Some(endpoint.id.name()), endpoint.class.as_ref()];
            for name in names.into_iter().flatten() {
                by_name.entry(name.as_str()).or_default().push(slot);
            }
            by_address.extend(endpoint.addresses.iter().map(|address| (*address, slot)));
        }
        Self {
            endpoints,
            by_name,
            by_address,
            by_label,
        }
    }

    fn find(&self, selectors: &[Selector]) -> Vec<usize> {
        if selectors.contains(&Selector::Any) {
            return (0..self.endpoints.len()).collect();
        }
        let mut found = BTreeSet::new();
        let distinct: HashSet<_> = selectors.iter().collect();
        for selector in distinct {
            match selector {
                Selector::Any => {}
                Selector::Endpoint(name) => {
                    found.extend(self.by_name.get(name.as_str()).into_iter().flatten());
                }
                Selector::Address(address) => found.extend(self.by_address.get(address)),
                Selector::Network(cidr) => {
                    let (first, last) = cidr.bounds();
                    let range = (Bound::Included(first), Bound::Included(last));
                    found.extend(self.by_address.range(range).map(|(_, slot)| slot));
                }
                Selector::Labels(labels) => {
                    // The rarest label bounds the search.
                    let rarest = labels
                        .iter()
                        .map(|(key, value)| {
                            self.by_label
                                .get(&(&**key, &**value))
                                .map_or(&[][..], |v| v)
                        })
                        .min_by_key(|slots| slots.len())
                        .unwrap_or_default();
                    let has_all = |slot: &&usize| {
                        self.endpoints
                            .get(**slot)
                            .is_some_and(|endpoint| selector.matches(endpoint))
                    };
                    found.extend(rarest.iter().filter(has_all));
                }
            }
        }
        found.into_iter().collect()
    }
}
