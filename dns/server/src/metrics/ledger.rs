//! What one worker has answered since it last told the metrics, so that a batch of answers is counted at once.

use std::{net::IpAddr, sync::Arc, time::Duration};

use super::{
    Counter, Transport,
    site::{Place, SiteMetrics, Sum},
};

/// What an answer is counted as.
pub(crate) struct Tally {
    pub(crate) site: Option<Arc<SiteMetrics>>,
    pub(crate) place: Place,
    /// What the plugin that answered counts each time it is given again.
    pub(crate) counters: Option<[Arc<Counter>; 2]>,
}

/// Answers that are not in the metrics yet.
#[derive(Default)]
pub(crate) struct Ledger {
    lines: Vec<(Tally, Sum)>,
}

/// Where in a ledger answers of one kind are counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Line(u32);

impl Tally {
    /// Counts one answer.
    pub(crate) fn count(
        &self,
        (client, transport): (IpAddr, Transport),
        request_size: usize,
        response_size: usize,
        took: Duration,
    ) {
        let mut sum = Sum::default();
        sum.add(client, request_size, response_size);
        self.count_all(transport, &sum, took);
    }

    fn count_all(&self, transport: Transport, sum: &Sum, took: Duration) {
        if let Some(site) = &self.site {
            site.count(transport, self.place, sum, took);
        }
    }

    /// Whether it is about the same counters.
    fn is(&self, other: &Self) -> bool {
        let site = |tally: &Self| tally.site.as_ref().map(Arc::as_ptr);
        let counters =
            |tally: &Self| tally.counters.as_ref().map(|counters| counters.each_ref().map(Arc::as_ptr));
        self.place == other.place && site(self) == site(other) && counters(self) == counters(other)
    }
}

impl Ledger {
    /// The line for what is counted so. There are as many as there are kinds of answers.
    pub(crate) fn line(&mut self, tally: Tally) -> Line {
        let known = self.lines.iter().position(|(line, _)| line.is(&tally));
        let index = known.unwrap_or_else(|| {
            self.lines.push((tally, Sum::default()));
            self.lines.len() - 1
        });
        Line(u32::try_from(index).unwrap_or(u32::MAX))
    }

    /// Notes an answer that is given again.
    pub(crate) fn note(&mut self, line: Line, client: IpAddr, request_size: usize, response_size: usize) {
        if let Some((_, sum)) = self.lines.get_mut(line.0 as usize) {
            sum.add(client, request_size, response_size);
        }
    }

    /// Tells the metrics what was noted; all of it took equally long.
    pub(crate) fn settle(&mut self, transport: Transport, took: Duration) {
        for (tally, sum) in self.lines.iter_mut().filter(|(_, sum)| !sum.is_empty()) {
            tally.count_all(transport, sum, took);
            tally.counters.iter().flatten().for_each(|counter| counter.add_many(sum.answers()));
            *sum = Sum::default();
        }
    }

    /// Forgets its lines, when nobody holds one any more.
    pub(crate) fn close(&mut self) {
        self.lines.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use fairlead_zone::{Rcode, RecordType};

    use super::*;
    use crate::metrics::Registry;

    #[test]
    fn a_batch_is_counted_as_its_answers_would_be_one_by_one() {
        let texts = [false, true].map(|at_once| {
            let registry = Registry::default();
            let site = registry.site("dns://:53", ".");
            let hits: [Arc<Counter>; 2] = Default::default();
            let tally = |rtype| Tally {
                site: Some(Arc::clone(&site)),
                place: Place::new(rtype, Rcode::NO_ERROR, "cache", true),
                counters: Some(hits.clone()),
            };
            let mut ledger = Ledger::default();
            let took = Duration::from_millis(3);
            let answers: [(RecordType, IpAddr, usize, usize); 4] = [
                (RecordType::A, Ipv4Addr::LOCALHOST.into(), 40, 120),
                (RecordType::AAAA, Ipv4Addr::LOCALHOST.into(), 40, 600),
                (RecordType::A, Ipv6Addr::LOCALHOST.into(), 50, 120),
                (RecordType::A, Ipv4Addr::LOCALHOST.to_ipv6_mapped().into(), 50, 1024),
            ];
            for (rtype, client, request, response) in answers {
                if at_once {
                    let line = ledger.line(tally(rtype));
                    ledger.note(line, client, request, response);
                } else {
                    tally(rtype).count((client, Transport::Udp), request, response, took);
                }
            }
            assert_eq!(ledger.lines.len(), if at_once { 2 } else { 0 });
            for _ in 0..2 {
                ledger.settle(Transport::Udp, took);
            }
            assert_eq!(hits.map(|counter| counter.get()), if at_once { [4, 4] } else { [0, 0] });
            registry.to_text()
        });
        let [one_by_one, at_once] = &texts;
        assert_eq!(at_once, one_by_one);
        assert!(at_once.contains(r#"type="A"} 2"#), "{at_once}");
    }
}
