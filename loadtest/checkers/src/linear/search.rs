//! The search over configurations of one register. Pure; bounded by a number of states.

use std::collections::{HashMap, HashSet, VecDeque};

/// What the register holds; None: nothing.
type State = Option<u64>;

/// Positions of items, ascending.
type Set = Vec<u32>;

/// Operations just before the stuck one that a violation shows.
const SHOWN_BEFORE: usize = 4;
/// Operations beside the stuck one that a violation shows.
const SHOWN_BESIDE: usize = 8;

/// What an operation does or sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Effect {
    Write(State),
    Read(State),
    Swap { expected: State, new: State },
    Mismatch { expected: State, seen: State },
    Differs(State),
}

impl Effect {
    /// What the register holds afterwards, if this changes it.
    fn target(self) -> Option<State> {
        match self {
            Self::Write(new) | Self::Swap { new, .. } => Some(new),
            Self::Read(_) | Self::Mismatch { .. } | Self::Differs(_) => None,
        }
    }
}

/// One operation.
#[derive(Debug, Clone)]
pub(super) struct Item {
    /// Into the history.
    pub(super) index: usize,
    pub(super) called_at: u64,
    /// None: it may take effect at any time after the call, or never.
    pub(super) returned_at: Option<u64>,
    pub(super) effect: Effect,
}

/// What a search came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    Order,
    NoOrder {
        /// The operation, as index into the history, that no order explains.
        stuck: usize,
        /// It and its surroundings, as indices into the history.
        around: Vec<usize>,
    },
    TooManyStates,
}

/// What the register holds, and which running operations with an end have taken effect.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Config {
    state: State,
    done: Set,
}

/// Configurations, each with the least sets of unknown writes that it took.
#[derive(Debug, Default)]
struct Configs {
    spent: HashMap<Config, Vec<Set>>,
}

impl Configs {
    /// Adds one, unless the same was reached with fewer unknown writes.
    fn insert(&mut self, config: Config, spent: Set) -> bool {
        let least = self.spent.entry(config).or_default();
        if least.iter().any(|other| is_subset(other, &spent)) {
            return false;
        }
        least.retain(|other| !is_subset(&spent, other));
        least.push(spent);
        true
    }

    /// Forgets unknown writes that all configurations have spent; gives them.
    fn drop_common(&mut self) -> Set {
        let mut sets = self.spent.values().flatten();
        let Some(mut common) = sets.next().cloned() else { return Set::new() };
        for set in sets {
            common.retain(|item| set.binary_search(item).is_ok());
        }
        if !common.is_empty() {
            for set in self.spent.values_mut().flatten() {
                set.retain(|item| common.binary_search(item).is_err());
            }
        }
        common
    }
}

pub(super) struct Search {
    items: Vec<Item>,
    /// Value to the earliest time at which it may be expired.
    expiries: HashMap<u64, u64>,
    states_max: usize,
    states: usize,
    /// State to the last return of an operation that may see it.
    needed_until: HashMap<State, u64>,
    /// The last return of an operation that saw something else than expected, and not what: until
    /// then every state is needed.
    untold_until: Option<u64>,
    /// Running operations that have an end.
    running: Vec<u32>,
    /// Writes of unknown outcome that may still take effect.
    unknown: Vec<u32>,
}

impl Search {
    pub(super) fn new(items: Vec<Item>, expiries: Vec<(u64, u64)>, states_max: usize) -> Self {
        let mut earliest = HashMap::new();
        for (value, at) in expiries {
            let known = earliest.entry(value).or_insert(at);
            *known = at.min(*known);
        }
        let mut search = Self {
            items,
            expiries: earliest,
            states_max,
            states: 0,
            needed_until: HashMap::new(),
            untold_until: None,
            running: Vec::new(),
            unknown: Vec::new(),
        };
        search.find_needs();
        search
    }

    /// Until when each state may be seen, unknown conditional writes included: those count for as
    /// long as what they write is needed.
    fn find_needs(&mut self) {
        let mut until: HashMap<State, u64> = HashMap::new();
        let mut unknown: HashMap<State, Vec<State>> = HashMap::new();
        let mut changed = VecDeque::new();
        for item in &self.items {
            let seen = match (item.effect, item.returned_at) {
                (Effect::Differs(_), end) => {
                    self.untold_until = self.untold_until.max(end);
                    continue;
                }
                (Effect::Write(_), _) => continue,
                (Effect::Read(seen) | Effect::Mismatch { seen, .. }, _) => seen,
                (Effect::Swap { expected, .. }, Some(_)) => expected,
                (Effect::Swap { expected, new }, None) => {
                    unknown.entry(new).or_default().push(expected);
                    continue;
                }
            };
            let at = item.returned_at.unwrap_or(u64::MAX);
            let known = until.entry(seen).or_insert(at);
            *known = at.max(*known);
            changed.push_back(seen);
        }
        // An expiring value serves whoever sees nothing.
        let expiring: Vec<State> = self.expiries.keys().map(|&value| Some(value)).collect();
        while let Some(state) = changed.pop_front() {
            let at = until.get(&state).copied().unwrap_or(0);
            let also = if state.is_none() { expiring.as_slice() } else { &[] };
            for &other in unknown.get(&state).into_iter().flatten().chain(also) {
                let known = until.get(&other).copied();
                if known.is_none_or(|known| known < at) {
                    until.insert(other, at);
                    changed.push_back(other);
                }
            }
        }
        self.needed_until = until;
    }

    fn is_needed(&self, state: State, now: u64) -> bool {
        self.untold_until.is_some_and(|until| until >= now)
            || self.needed_until.get(&state).is_some_and(|&until| until >= now)
    }

    /// The states that a running operation or a write of unknown outcome may see next. To write
    /// any other, without need, changes nothing for anybody.
    fn wanted(&self) -> Wanted {
        let mut wanted = Wanted { states: HashSet::new(), all: false };
        for &at in self.running.iter().chain(&self.unknown) {
            match self.item(at).effect {
                Effect::Read(seen) | Effect::Mismatch { seen, .. } => wanted.states.insert(seen),
                Effect::Swap { expected, .. } => wanted.states.insert(expected),
                Effect::Differs(_) => {
                    wanted.all = true;
                    false
                }
                Effect::Write(_) => false,
            };
        }
        wanted
    }

    fn is_wanted(&self, wanted: &Wanted, state: State) -> bool {
        let expires = || state.is_some_and(|value| self.expiries.contains_key(&value));
        wanted.all || wanted.states.contains(&state) || (wanted.states.contains(&None) && expires())
    }

    /// Searches for an order.
    pub(super) fn run(mut self) -> Found {
        // Calls before returns at one time: such operations count as overlapping.
        let mut events: Vec<(u64, bool, u32)> = Vec::new();
        for (at, item) in (0_u32..).zip(&self.items) {
            events.push((item.called_at, false, at));
            events.extend(item.returned_at.map(|end| (end, true, at)));
        }
        events.sort_unstable();
        let mut configs = Configs::default();
        configs.insert(Config { state: None, done: Set::new() }, Set::new());
        let mut before = VecDeque::new();
        for (now, is_return, at) in events {
            if !is_return {
                let has_end = self.item(at).returned_at.is_some();
                if has_end { &mut self.running } else { &mut self.unknown }.push(at);
                continue;
            }
            let next = match self.carry_on(configs, at, now) {
                Ok(next) => next,
                Err(TooManyStates) => return Found::TooManyStates,
            };
            if next.spent.is_empty() {
                return self.no_order(at, &before);
            }
            configs = next;
            self.running.retain(|&other| other != at);
            let spent = configs.drop_common();
            let unknown = std::mem::take(&mut self.unknown);
            self.unknown = unknown
                .into_iter()
                .filter(|other| spent.binary_search(other).is_err())
                .filter(|&other| {
                    let target = self.item(other).effect.target();
                    target.is_some_and(|target| self.is_needed(target, now))
                })
                .collect();
            before.push_back(at);
            if before.len() > SHOWN_BEFORE {
                before.pop_front();
            }
        }
        Found::Order
    }

    /// Carries every configuration on until `returning` has taken effect.
    fn carry_on(
        &mut self,
        configs: Configs,
        returning: u32,
        now: u64,
    ) -> Result<Configs, TooManyStates> {
        let useful = self.useful();
        let mut next = Configs::default();
        let mut reached = Configs::default();
        let mut work = Vec::new();
        for (mut config, sets) in configs.spent {
            self.take_reads(&mut config);
            for spent in sets {
                if reached.insert(config.clone(), spent.clone()) {
                    work.push((config.clone(), spent));
                }
            }
        }
        // Breadth first in unknown writes, so that the least sets come first.
        let mut work = VecDeque::from(work);
        while let Some((mut config, spent)) = work.pop_front() {
            self.states += 1;
            if self.states > self.states_max {
                return Err(TooManyStates);
            }
            if let Ok(place) = config.done.binary_search(&returning) {
                config.done.remove(place);
                next.insert(config, spent);
                continue;
            }
            for &at in &self.running {
                if config.done.binary_search(&at).is_ok() {
                    continue;
                }
                if let Some(after) = self.after(&config, at, true, now)
                    && reached.insert(after.clone(), spent.clone())
                {
                    work.push_back((after, spent.clone()));
                }
            }
            for alike in &useful {
                let unspent = alike
                    .iter()
                    .find_map(|&at| spent.binary_search(&at).err().map(|place| (at, place)));
                let Some((at, place)) = unspent else { continue };
                let Some(after) = self.after(&config, at, false, now) else { continue };
                let mut more = spent.clone();
                more.insert(place, at);
                if reached.insert(after.clone(), more.clone()) {
                    work.push_back((after, more));
                }
            }
        }
        Ok(next)
    }

    /// Unknown writes that somebody wants, those of one effect together: they are all there for
    /// ever, so that it is no matter which of them is spent first.
    fn useful(&self) -> Vec<Set> {
        let wanted = self.wanted();
        let mut groups: Vec<Set> = Vec::new();
        let mut group_of: HashMap<Effect, usize> = HashMap::new();
        for &at in &self.unknown {
            let effect = self.item(at).effect;
            if effect.target().is_some_and(|target| self.is_wanted(&wanted, target)) {
                let group = *group_of.entry(effect).or_insert(groups.len());
                if group == groups.len() {
                    groups.push(Set::new());
                }
                groups[group].push(at);
            }
        }
        groups
    }

    /// The configuration after a writing operation, if it can take effect now.
    fn after(&self, config: &Config, at: u32, has_end: bool, now: u64) -> Option<Config> {
        let item = self.item(at);
        let state = match item.effect {
            Effect::Write(new) => new,
            Effect::Swap { expected, new } => {
                self.fits(expected, config.state, item).then_some(new)?
            }
            // Taken at once where they fit.
            Effect::Read(_) | Effect::Mismatch { .. } | Effect::Differs(_) => return None,
        };
        let mut done = config.done.clone();
        if matches!(item.effect, Effect::Write(_)) {
            // Whatever nobody sees any more may as well be overwritten here.
            let unseen = self.running.iter().filter(|&&other| match self.item(other).effect {
                Effect::Write(new) => other != at && !self.is_needed(new, now),
                _ => false,
            });
            for &other in unseen {
                insert(&mut done, other);
            }
        }
        if has_end {
            insert(&mut done, at);
        }
        let mut after = Config { state, done };
        self.take_reads(&mut after);
        Some(after)
    }

    /// Lets running operations that only look take effect where what they saw is there.
    fn take_reads(&self, config: &mut Config) {
        for &at in &self.running {
            let item = self.item(at);
            let takes = match item.effect {
                Effect::Read(seen) => self.fits(seen, config.state, item),
                Effect::Mismatch { expected, seen } => {
                    expected != seen && self.fits(seen, config.state, item)
                }
                Effect::Differs(other) => {
                    config.state != other || self.may_be_expired(config.state, item)
                }
                Effect::Write(_) | Effect::Swap { .. } => false,
            };
            if takes {
                insert(&mut config.done, at);
            }
        }
    }

    /// May `item` have seen `seen` while the register held `state`?
    fn fits(&self, seen: State, state: State, item: &Item) -> bool {
        seen == state || (seen.is_none() && self.may_be_expired(state, item))
    }

    fn may_be_expired(&self, state: State, item: &Item) -> bool {
        let expiry = state.and_then(|value| self.expiries.get(&value));
        expiry.is_some_and(|&at| item.returned_at.is_none_or(|end| at <= end))
    }

    fn item(&self, at: u32) -> &Item {
        &self.items[at as usize]
    }

    fn no_order(&self, stuck: u32, before: &VecDeque<u32>) -> Found {
        let mut shown: HashSet<u32> = before.iter().copied().collect();
        shown.extend(self.running.iter().filter(|&&at| at != stuck).take(SHOWN_BESIDE));
        shown.insert(stuck);
        // Who wrote what the stuck one saw.
        let seen = match self.item(stuck).effect {
            Effect::Read(seen) | Effect::Mismatch { seen, .. } => Some(seen),
            Effect::Swap { expected, .. } => Some(expected),
            Effect::Write(_) | Effect::Differs(_) => None,
        };
        if let Some(seen @ Some(_)) = seen {
            let writers = (0_u32..).zip(&self.items);
            shown.extend(
                writers
                    .filter(|(_, item)| item.effect.target() == Some(seen))
                    .map(|(at, _)| at)
                    .take(SHOWN_BEFORE),
            );
        }
        Found::NoOrder {
            stuck: self.item(stuck).index,
            around: shown.into_iter().map(|at| self.item(at).index).collect(),
        }
    }
}

/// What is worth writing.
struct Wanted {
    states: HashSet<State>,
    all: bool,
}

/// The bound was reached.
struct TooManyStates;

fn insert(set: &mut Set, item: u32) {
    if let Err(place) = set.binary_search(&item) {
        set.insert(place, item);
    }
}

fn is_subset(small: &[u32], large: &[u32]) -> bool {
    small.len() <= large.len() && small.iter().all(|item| large.binary_search(item).is_ok())
}
