/**
 * Letters that look alike, folded to one: two members whose names differ only in such letters are then shown with
 * their IDs. Stands in for the SDK's full table (86 KB compressed); it holds the Cyrillic and Greek letters that pass
 * for Latin ones, full-width forms, and digits that pass for letters.
 */
const GROUPS: Record<string, string> = {
    a: "аαɑ", b: "Ьв", c: "сϲ", d: "ԁ", e: "еεє", g: "ɡ", h: "һн", i: "іιıl1|!ӏ", j: "ј", k: "кκ", m: "м", n: "пη",
    o: "оο0σѳ", p: "рρ", q: "ԛ", r: "гᴦ", s: "ѕ5", t: "тτ", u: "υս", v: "ѵν", w: "ԝω", x: "хχ", y: "уγү", z: "ᴢ2",
}; // prettier-ignore

const FOLD = new Map<string, string>(Object.entries(GROUPS).flatMap(([latin, alike]) => [...alike].map((letter) => [letter, latin] as [string, string])));

/** A form in which look-alikes are equal. Not for display. */
export default function fold(text: string): string {
    return [...text.normalize("NFKC").toLowerCase()].map((letter) => FOLD.get(letter) ?? letter).join("");
}
