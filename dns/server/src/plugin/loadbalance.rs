//! `loadbalance [round_robin | weighted FILE [{ reload DURATION }]] [{ prefer CIDR… | limit_answers COUNT }]`: the order
//! of addresses.
//!
//! `round_robin` shuffles them for each client. `weighted` puts one of them first, more often the heavier it is; its
//! file has names, each followed by lines `ADDRESS WEIGHT`. `prefer` puts the addresses of networks first.
//! `limit_answers` then gives the first of them only.

use std::{
    collections::HashMap,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use fairlead_model::Prefix;
use fairlead_zone::{Name, Record, RecordData};
use futures::FutureExt;

use super::{Plugins, Setup, once, one};
use crate::{
    chain::{Message, Next, Plugin, Query, Serving},
    corefile::{CorefileError, Directive, unknown},
    net::{contains, parse_prefix},
};

/// How often the file is read again; CoreDNS's value.
const RELOAD: Duration = Duration::from_secs(30);

struct Loadbalance {
    weights: Option<Arc<ArcSwap<Weights>>>,
    prefer: Vec<Prefix>,
    /// Most records that are given.
    limit: usize,
}

type Weights = HashMap<Name, Vec<(IpAddr, u8)>>;

pub(super) fn set_up(setup: &mut Setup<'_>, directives: &[Directive]) -> Result<Plugins, CorefileError> {
    let directive = once(directives)?;
    let mut words = directive.words();
    let mut file = None;
    match words.next() {
        None | Some("round_robin") => {}
        Some("weighted") => file = Some(setup.path(words.need("a file")?)),
        Some(policy) => {
            return Err(words.fault(format!("unknown policy {policy:?}; known are round_robin, weighted")));
        }
    }
    words.clone().end()?;
    let (mut prefer, mut reload, mut limit) = (Vec::new(), RELOAD, usize::MAX);
    for (option, mut words) in directive.lines() {
        match option {
            "prefer" => {
                while let Some(word) = words.next() {
                    prefer.push(
                        parse_prefix(word)
                            .ok_or_else(|| words.fault(format!("{word:?} is not a network")))?,
                    );
                }
            }
            "limit_answers" => limit = words.number("a number of records", 1..=usize::MAX)?,
            "reload" if file.is_some() => reload = words.duration()?,
            _ => return Err(unknown(&words, option)),
        }
    }
    let weights = match file {
        Some(file) => {
            let read = read_weights(&file).map_err(|message| words.fault(message))?;
            let weights = Arc::new(ArcSwap::from_pointee(read));
            if !reload.is_zero() {
                setup.spawn(follow(file, Arc::clone(&weights), reload).boxed());
            }
            Some(weights)
        }
        None => None,
    };
    one(Loadbalance { weights, prefer, limit })
}

async fn follow(file: PathBuf, weights: Arc<ArcSwap<Weights>>, every: Duration) {
    loop {
        tokio::time::sleep(every).await;
        match read_weights(&file) {
            Ok(read) => weights.store(Arc::new(read)),
            Err(message) => tracing::warn!("loadbalance: {message}; the old weights stay"),
        }
    }
}

fn read_weights(file: &Path) -> Result<Weights, String> {
    let text = std::fs::read_to_string(file).map_err(|e| format!("cannot read {}: {e}", file.display()))?;
    parse_weights(&text).map_err(|(line, message)| format!("{}:{line}: {message}", file.display()))
}

fn parse_weights(text: &str) -> Result<Weights, (usize, String)> {
    let mut weights = Weights::new();
    let mut name = None;
    for (line, number) in text.lines().zip(1..) {
        let words: Vec<&str> = line.split('#').next().unwrap_or("").split_whitespace().collect();
        match (words.as_slice(), &name) {
            ([], _) => {}
            ([one], _) => {
                let parsed = Name::parse(one).map_err(|e| (number, format!("{one:?} is not a name: {e}")))?;
                name = Some(parsed);
            }
            ([address, weight], Some(name)) => {
                let address =
                    address.parse().map_err(|_| (number, format!("{address:?} is not an address")))?;
                let weight = weight.parse().ok().filter(|weight| *weight > 0);
                let weight = weight.ok_or((number, "the weight is not between 1 and 255".to_owned()))?;
                weights.entry(name.clone()).or_default().push((address, weight));
            }
            _ => return Err((number, "expected a name, or an address and a weight below a name".into())),
        }
    }
    Ok(weights)
}

impl Plugin for Loadbalance {
    fn serve<'a>(&'a self, query: &'a mut Query, next: Next<'a>) -> Serving<'a> {
        async move {
            let mut response = next.serve(query).await;
            if self.weights.is_none() && self.prefer.is_empty() && self.limit == usize::MAX {
                response.rotate = true;
                return response;
            }
            response.stable = None;
            if let Some(message) = response.message_mut() {
                shuffle(message);
                if let Some(weights) = &self.weights {
                    heaviest_first(message, &weights.load());
                }
                if !self.prefer.is_empty() {
                    let preferred = |record: &Record| {
                        address_of(record)
                            .is_some_and(|address| self.prefer.iter().any(|net| contains(net, address)))
                    };
                    addresses(message).sort_by_key(|record| !preferred(record));
                }
                message.answers.truncate(self.limit);
            }
            response
        }
        .boxed()
    }
}

/// Addresses and mail exchanges in random order; aliases stay in front.
pub(crate) fn shuffle(message: &mut Message) {
    use rand::seq::SliceRandom;
    addresses(message).shuffle(&mut rand::rng());
}

/// The records of the answer behind its aliases, when they may change places.
fn addresses(message: &mut Message) -> &mut [Record] {
    let start =
        message.answers.iter().take_while(|record| matches!(record.data, RecordData::Cname(_))).count();
    let rest = &mut message.answers[start..];
    let same = rest.windows(2).all(|pair| pair[0].data.rtype() == pair[1].data.rtype());
    let movable =
        rest.first().is_some_and(|record| address_of(record).is_some() || record.data.rtype().0 == 15);
    if same && movable { rest } else { &mut [] }
}

fn heaviest_first(message: &mut Message, weights: &Weights) {
    let records = addresses(message);
    let Some(known) = records.first().and_then(|record| weights.get(&record.name)) else { return };
    let weight = |record: &Record| {
        let address = address_of(record);
        u32::from(known.iter().find(|(known, _)| Some(*known) == address).map_or(1, |(_, weight)| *weight))
    };
    let total: u32 = records.iter().map(weight).sum();
    let mut pick = rand::random_range(0..total.max(1));
    for at in 0..records.len() {
        let weight = weight(&records[at]);
        if pick < weight {
            records[..=at].rotate_right(1);
            return;
        }
        pick -= weight;
    }
}

fn address_of(record: &Record) -> Option<IpAddr> {
    match record.data {
        RecordData::A(address) => Some(address.into()),
        RecordData::Aaaa(address) => Some(address.into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(last: &[u8]) -> Message {
        let name = Name::parse("www.example.org").unwrap();
        let record = |last: &u8| Record {
            name: name.clone(),
            ttl_secs: 1,
            data: RecordData::A([192, 0, 2, *last].into()),
        };
        Message::found(last.iter().map(record).collect())
    }

    #[test]
    fn the_heavier_address_comes_first_more_often() {
        let weights = parse_weights("www.example.org\n192.0.2.1 1\n192.0.2.2 200 # heavy\n").unwrap();
        let heavy_first = (0..200).filter(|_| {
            let mut message = message(&[1, 2]);
            heaviest_first(&mut message, &weights);
            message.answers.len() == 2 && message.answers[0].data == RecordData::A([192, 0, 2, 2].into())
        });
        assert!(heavy_first.count() > 150);
    }

    #[test]
    fn weights_need_a_name_an_address_and_a_weight() {
        for (text, line) in [("192.0.2.1 1", 1), ("a.org\nx 1", 2), ("a.org\n192.0.2.1 0", 2), ("a..b", 1)] {
            assert_eq!(parse_weights(text).unwrap_err().0, line, "{text}");
        }
    }

    #[test]
    fn aliases_stay_in_front_of_shuffled_addresses() {
        let mut message = message(&[1, 2, 3, 4]);
        let alias =
            Record { data: RecordData::Cname(message.answers[0].name.clone()), ..message.answers[0].clone() };
        message.answers.insert(0, alias.clone());
        shuffle(&mut message);
        assert_eq!((message.answers.len(), &message.answers[0]), (5, &alias));
    }
}
