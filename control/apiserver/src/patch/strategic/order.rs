//! `$setElementOrder`: the order of a merged list.

use serde_json::Value;

/// Puts the listed elements in the wanted order; those that only the server has keep their place among their
/// neighbours of before.
pub(super) fn sort(items: &mut Vec<Value>, before: &[Value], wanted: &[Value], key: Option<&str>) {
    let id = |item: &Value| key.map_or_else(|| Some(item.clone()), |key| item.get(key).cloned());
    let index = |list: &[Value], item: &Value| {
        let wanted = id(item)?;
        list.iter().position(|one| id(one).as_ref() == Some(&wanted))
    };
    let (mut listed, mut others): (Vec<Value>, Vec<Value>) =
        items.drain(..).partition(|item| index(wanted, item).is_some());
    listed.sort_by_key(|item| index(wanted, item));
    others.sort_by_key(|item| index(before, item).unwrap_or(usize::MAX));
    let mut listed = listed.into_iter().peekable();
    let mut others = others.into_iter().peekable();
    loop {
        let other_first = match (listed.peek(), others.peek()) {
            (Some(a), Some(b)) => match (index(before, a), index(before, b)) {
                (Some(a), Some(b)) => b < a,
                _ => false,
            },
            (None, Some(_)) => true,
            (Some(_), None) => false,
            (None, None) => return,
        };
        items.extend(if other_first { others.next() } else { listed.next() });
    }
}
