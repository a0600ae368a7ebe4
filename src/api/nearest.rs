//! "Did you mean": the nearest name to a typo.

/// How many letters may differ. With 3, names of three letters would all be near each other.
const MOST_EDITS: usize = 2;

/// The candidate that differs from `name` by the fewest letters changed, added, left out or swapped with their
/// neighbour, if that is at most two and less than the whole word; the first of several.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let typed: Vec<char> = name.to_lowercase().chars().take(64).collect();
    candidates
        .into_iter()
        .map(|candidate| {
            (
                distance(&typed, &candidate.chars().take(64).collect::<Vec<_>>()),
                candidate,
            )
        })
        .filter(|(edits, candidate)| *edits <= MOST_EDITS && *edits < candidate.chars().count())
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

/// Whether one letter changed, added, left out or swapped with its neighbour makes `name` of `candidate`.
pub fn is_one_letter_off(name: &str, candidate: &str) -> bool {
    let letters = |text: &str| text.chars().take(64).collect::<Vec<_>>();
    distance(&letters(name), &letters(candidate)) <= 1
}

/// The Damerau–Levenshtein distance, in its restricted form (no letter is edited twice).
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, letter) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, other) in b.iter().enumerate() {
            let mut edits = (last[j] + usize::from(letter != other))
                .min(last[j + 1] + 1)
                .min(row[j] + 1);
            if i > 0 && j > 0 && a[i - 1] == *other && b[j - 1] == *letter {
                edits = edits.min(before[j - 1] + 1);
            }
            row.push(edits);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typo_finds_its_name() {
        let names = ["anna", "bo", "nas", "web"];
        assert_eq!(nearest("nass", names), Some("nas"));
        assert_eq!(nearest("naan", names), Some("anna"));
        assert_eq!(nearest("Anna", names), Some("anna"));
        assert_eq!(nearest("wbe", names), Some("web"));
    }

    #[test]
    fn a_word_unlike_all_names_finds_none() {
        assert_eq!(nearest("printer", ["anna", "bo", "nas"]), None);
        assert_eq!(nearest("xy", ["bo"]), None);
        assert_eq!(nearest("", ["bo"]), None);
    }

    #[test]
    fn swapped_neighbours_are_one_edit() {
        let letters = |word: &str| word.chars().collect::<Vec<_>>();
        assert_eq!(distance(&letters("ab"), &letters("ba")), 1);
        assert_eq!(distance(&letters("kitten"), &letters("sitting")), 3);
        assert_eq!(distance(&letters(""), &letters("abc")), 3);
    }
}
