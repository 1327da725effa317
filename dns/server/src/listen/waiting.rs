//! Questions of one worker that wait for somebody else, bounded and shared out fairly.
//!
//! When there are too many, the newest is served and an older one gives way: the oldest of the client that asked for
//! more than its share. A client that floods thus only pushes out its own questions.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
};

/// Which question.
pub(crate) type Ticket = u64;

/// The questions that wait.
pub(crate) struct Waiting<T> {
    /// Most questions.
    max: usize,
    /// What to do to a question that gives way.
    entries: HashMap<Ticket, (IpAddr, T)>,
    /// By client, oldest first; may still name questions that are answered.
    clients: HashMap<IpAddr, Line>,
    next: Ticket,
}

#[derive(Default)]
struct Line {
    tickets: VecDeque<Ticket>,
    /// Those of them that still wait.
    count: usize,
}

impl<T> Waiting<T> {
    pub(crate) fn new(max: usize) -> Self {
        Self { max, entries: HashMap::new(), clients: HashMap::new(), next: 0 }
    }

    /// Takes a question in; gives the one that has to give way.
    pub(crate) fn admit(&mut self, client: IpAddr, entry: T) -> (Ticket, Option<T>) {
        let shed = (self.entries.len() >= self.max).then(|| self.shed(client)).flatten();
        let ticket = self.next;
        self.next += 1;
        self.entries.insert(ticket, (client, entry));
        let line = self.clients.entry(client).or_default();
        line.tickets.push_back(ticket);
        line.count += 1;
        (ticket, shed)
    }

    /// A question is answered.
    pub(crate) fn done(&mut self, ticket: Ticket) -> Option<T> {
        let (client, entry) = self.entries.remove(&ticket)?;
        if let Some(line) = self.clients.get_mut(&client) {
            line.count -= 1;
            while line.tickets.front().is_some_and(|ticket| !self.entries.contains_key(ticket)) {
                line.tickets.pop_front();
            }
            if line.count == 0 {
                self.clients.remove(&client);
            }
        }
        Some(entry)
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The oldest question of whoever has too many: the newcomer itself, when it has its share already.
    fn shed(&mut self, newcomer: IpAddr) -> Option<T> {
        let own = self.clients.get(&newcomer).map_or(0, |line| line.count);
        let fair = self.entries.len() / self.clients.len().max(1);
        let greedy = if own > 0 && own >= fair {
            newcomer
        } else {
            *self.clients.iter().max_by_key(|(_, line)| line.count)?.0
        };
        let line = self.clients.get(&greedy)?;
        let oldest = *line.tickets.iter().find(|ticket| self.entries.contains_key(ticket))?;
        self.done(oldest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLITE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 244, 0, 1));
    const FLOODER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 244, 0, 2));

    #[test]
    fn a_flood_pushes_out_only_its_own_oldest_questions() {
        let mut waiting = Waiting::new(10);
        let (first, _) = waiting.admit(POLITE, (POLITE, 0));
        for number in 0..100 {
            let (_, shed) = waiting.admit(FLOODER, (FLOODER, number));
            let expected = (number >= 9).then(|| (FLOODER, number - 9));
            assert_eq!(shed, expected);
        }
        let (_, shed) = waiting.admit(POLITE, (POLITE, 1));
        assert_eq!(shed, Some((FLOODER, 91)), "a newcomer takes the place of who has most");
        assert_eq!(waiting.len(), 10);
        assert_eq!(waiting.done(first), Some((POLITE, 0)));
    }

    #[test]
    fn nothing_is_remembered_of_questions_that_are_answered() {
        let mut waiting = Waiting::new(100);
        for round in 0..10_u64 {
            let tickets: Vec<Ticket> = (0..50).map(|_| waiting.admit(POLITE, round).0).collect();
            for ticket in tickets.iter().rev() {
                assert_eq!(waiting.done(*ticket), Some(round));
                assert_eq!(waiting.done(*ticket), None);
            }
        }
        assert!(waiting.entries.is_empty() && waiting.clients.is_empty());
    }
}
