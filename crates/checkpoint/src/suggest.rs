//! The names a mistyped one may have meant.

/// The `count` names nearest to `wanted` by edit distance, nearest first; ties in the order given.
///
/// ```
/// use bantam_checkpoint::nearest;
/// assert_eq!(nearest("temprature", ["top_p", "temperature"].into_iter(), 1), ["temperature"]);
/// ```
pub fn nearest<'a>(
    wanted: &str,
    names: impl Iterator<Item = &'a str>,
    count: usize,
) -> Vec<String> {
    let mut ranked: Vec<_> = names.map(|name| (edit_distance(wanted, name), name)).collect();
    ranked.sort_by_key(|&(distance, _)| distance);
    ranked.into_iter().take(count).map(|(_, name)| name.to_owned()).collect()
}

/// The name that a mistyped one most probably meant; none if no name is within a third of its
/// letters. Case, `_` and `-` do not count.
///
/// ```
/// use bantam_checkpoint::suggestion;
/// let names = || ["top_p", "max_tokens", "prediction"].into_iter();
/// assert_eq!(suggestion("maxTokens", names()), Some("max_tokens"));
/// assert_eq!(suggestion("n_predict", names()), None);
/// ```
pub fn suggestion<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let letters = |name: &str| name.replace(['_', '-'], "").to_ascii_lowercase();
    let wanted = letters(wanted);
    let ranked = names.map(|name| (edit_distance(&wanted, &letters(name)), name));
    let (distance, name) = ranked.min_by_key(|&(distance, _)| distance)?;
    (3 * distance <= wanted.len()).then_some(name)
}

/// Levenshtein's distance in bytes: insertions, deletions and substitutions that turn `a` into `b`.
fn edit_distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_edits() {
        assert_eq!(edit_distance("kitten", "sitting"), 3);
        assert_eq!(edit_distance("", "abc"), 3);
        assert_eq!(edit_distance("same", "same"), 0);
    }

    #[test]
    fn the_nearest_come_first() {
        let names = ["lm_head.weight", "model.norm.weight", "model.layers.0.mlp.up_proj.weight"];
        assert_eq!(nearest("norm.weight", names.into_iter(), 1), ["model.norm.weight"]);
    }
}
