/** What messages hold as HTML, from friends and others; and what people type. */
import { describe, expect, it } from "vitest";
import { MAX_DEPTH, parseHtml, type Rich, type RichElement, safeHref, textOf } from "../../src/domain/html.ts";
import { write } from "../../src/domain/markdown.ts";

function* elements(nodes: readonly Rich[]): Generator<RichElement> {
    for (const node of nodes) {
        if (typeof node === "string") continue;
        yield node;
        yield* elements(node.children);
    }
}

function depth(nodes: readonly Rich[]): number {
    return Math.max(0, ...nodes.map((node) => (typeof node === "string" ? 0 : 1 + depth(node.children))));
}

const ALLOWED = /^(del|s|h[1-6]|blockquote|p|a|ul|ol|sup|sub|li|b|i|u|strong|em|code|hr|br|div|table|thead|tbody|tr|th|td|caption|pre|span|details|summary)$/;
const FIELDS = ["tag", "children", "href", "person", "colour", "background", "spoiler", "start", "language"];

/** Ways to get a script to run, or a request to be made, that have worked somewhere. */
const ATTACKS = [
    "<script>alert(1)</script>",
    "<scr<script>ipt>alert(1)</scr</script>ipt>",
    "<SCRIPT SRC=//evil.example/x.js></SCRIPT>",
    "<script>alert(1)",
    "<script/x>alert(1)</script >",
    "<img src=x onerror=alert(1)>",
    "<img src='mxc://a/b' onload=alert(1)>",
    "<img/src=x/onerror=alert(1)//>",
    "<svg onload=alert(1)>",
    "<svg><script>alert(1)</script></svg>",
    "<svg><animate onbegin=alert(1) attributeName=x dur=1s>",
    "<svg><a xlink:href=javascript:alert(1)><text y=20>x</text></a></svg>",
    "<math><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img src=1 onerror=alert(1)&gt;'>",
    "<math><a xlink:href='javascript:alert(1)'>x</a></math>",
    "<a href='javascript:alert(1)'>x</a>",
    "<a href=' javascript:alert(1)'>x</a>",
    "<a href='java\tscript:alert(1)'>x</a>",
    "<a href='java&#10;script:alert(1)'>x</a>",
    "<a href='&#106;avascript:alert(1)'>x</a>",
    "<a href='&#x6A&#x61;vascript:alert(1)'>x</a>",
    "<a href='JaVaScRiPt:alert(1)'>x</a>",
    "<a href='data:text/html,<script>alert(1)</script>'>x</a>",
    "<a href='vbscript:msgbox(1)'>x</a>",
    "<a href='blob:https://x/1'>x</a>",
    "<a href='//evil.example'>x</a>",
    "<a href='/_matrix/client/v3/logout'>x</a>",
    "<a href='https://trusted.example@evil.example/'>x</a>",
    "<a href=https://x.example onclick=alert(1) style='position:fixed;inset:0' target=_self>x</a>",
    "<iframe src=javascript:alert(1)></iframe>",
    "<iframe srcdoc='<script>alert(1)</script>'>",
    "<object data=javascript:alert(1)><embed src=javascript:alert(1)>",
    "<form action=javascript:alert(1)><input type=submit><button formaction=javascript:alert(1)>x</button></form>",
    "<body onload=alert(1)>",
    "<style>@import '//evil.example/x.css'; * { background: url(//evil.example) }</style>",
    "<link rel=stylesheet href=//evil.example/x.css>",
    "<meta http-equiv=refresh content='0;url=javascript:alert(1)'>",
    "<base href=//evil.example/>",
    "<p style='background:url(//evil.example/x.png)'>x</p>",
    "<p onmouseover=alert(1) id=app name=body class=root>x</p>",
    "<div id='__proto__' constructor=x>x</div>",
    "<span data-mx-color='red;background:url(//evil.example)'>x</span>",
    "<span data-mx-color='#ff0000' style='color:url(//evil.example)'>x</span>",
    "<font color='expression(alert(1))'>x</font>",
    "<video src=x onerror=alert(1)><source onerror=alert(1)>",
    "<audio src=//evil.example/a.mp3 autoplay>",
    "<details open ontoggle=alert(1)>x</details>",
    "<select><noembed></select><script x='a@b'a>alert(1)</script>",
    "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>",
    "<textarea><script>alert(1)</script></textarea>",
    "<xmp><p title='</xmp><svg/onload=alert(1)>'>",
    "<!--><img src=x onerror=alert(1)>-->",
    "<!--<img src=x onerror=alert(1)>",
    "<![CDATA[<script>alert(1)</script>]]>",
    "<?xml version='1.0'?><script>alert(1)</script>",
    "<a title='</a><script>alert(1)</script>' href=x>x</a>",
    "<a href='https://x.example\"onclick=alert(1)'>x</a>",
    "<template><script>alert(1)</script></template>",
    "<custom-element onclick=alert(1)>x</custom-element>",
    "<marquee onstart=alert(1)>x</marquee>",
    "<isindex action=javascript:alert(1)>",
    "<p><<script>alert(1);//<</script>",
    "\u0000<scr\u0000ipt>alert(1)</script>",
    "<a href=\"\u0001javascript:alert(1)\">x</a>",
];

describe("HTML of messages", () => {
    it.each(ATTACKS)("gives only what is named, for %s", (attack) => {
        for (const html of [attack, `<b>${attack}</b>`, `<blockquote><p>${attack}`, `<a href="https://ok.example">${attack}</a>`]) {
            for (const element of elements(parseHtml(html))) {
                expect(element.tag).toMatch(ALLOWED);
                expect(Object.keys(element).filter((key) => !FIELDS.includes(key))).toEqual([]);
                if (element.href !== undefined) expect(element.href).toMatch(/^(https?:\/\/[^@]+|mailto:.+)$/);
                for (const colour of [element.colour, element.background]) if (colour !== undefined) expect(colour).toMatch(/^#[0-9a-f]{6}$/i);
            }
        }
    });

    it("keeps what belongs there", () => {
        expect(parseHtml("<p>Hello <b>dear</b> <em>friends</em></p>")).toEqual([
            { tag: "p", children: ["Hello ", { tag: "b", children: ["dear"] }, " ", { tag: "em", children: ["friends"] }] },
        ]);
        expect(parseHtml('<a href="https://example.org/a?b=1&amp;c=2">x</a>')).toEqual([{ tag: "a", href: "https://example.org/a?b=1&c=2", children: ["x"] }]);
        expect(parseHtml('<a href="https://matrix.to/#/%40bob%3Aexample.org">Bob</a>')).toMatchObject([{ person: "@bob:example.org" }]);
        expect(parseHtml('<font data-mx-color="#FF0000" data-mx-bg-color="#00ff00">x</font>')).toMatchObject([{ tag: "span", colour: "#FF0000", background: "#00ff00" }]);
        expect(parseHtml('<span data-mx-spoiler="the end">x</span>')).toMatchObject([{ spoiler: "the end" }]);
        expect(parseHtml('<pre><code class="language-go">a &lt; b</code></pre>')).toMatchObject([{ tag: "pre", children: [{ tag: "code", language: "go", children: ["a < b"] }] }]);
        expect(parseHtml('<ol start="3"><li>a<li>b</ol>c')).toMatchObject([{ tag: "ol", start: 3, children: [{ children: ["a"] }, { children: ["b"] }] }, "c"]);
        expect(textOf(parseHtml("a<br>b &#x1F331; &nbsp;&unknown; 1 < 2 & 3"))).toBe("a\nb 🌱 \u00a0&unknown; 1 < 2 & 3");
        expect(textOf(parseHtml("<mx-reply><blockquote>before</blockquote></mx-reply>after"))).toBe("after");
        expect(textOf(parseHtml('<img src="mxc://a/b" alt=":wave:">'))).toBe(":wave:");
    });

    it("stands whatever is in each other, however much", () => {
        const deep = parseHtml(`${"<b>".repeat(9_000)}x${"</b>".repeat(9_000)}`);
        expect(depth(deep)).toBe(MAX_DEPTH);
        expect(textOf(deep)).toBe("x");
        for (const piece of ["<a ", '<a "', "<", "<!--", "&#", "</b>", "<p>", "<script>", "<b <", "<a x='"]) {
            expect(depth(parseHtml(piece.repeat(70_000 / piece.length)))).toBeLessThanOrEqual(MAX_DEPTH);
        }
    });

    it("lets only addresses be followed that lead to a page or a letter", () => {
        expect(safeHref("https://example.org")).toBe("https://example.org/");
        expect(safeHref("mailto:bob@example.org")).toBe("mailto:bob@example.org");
        for (const address of ["javascript:1", "JAVASCRIPT:1", "data:,x", "file:///etc/passwd", "x", "", undefined, "https://a:b@c.example"]) expect(safeHref(address)).toBeUndefined();
    });
});

describe("what people type", () => {
    const bob = { userId: "@bob:example.org", name: "Bob & Co" };
    it.each([
        ["plain text, 2*3*4 and snake_case_name", undefined],
        ["<b>no</b> & <script>", undefined],
        ["https://example.org/a_b_c*d*", undefined],
        ["**so** it *is*", "<strong>so</strong> it <em>is</em>"],
        ["_so_ ~~not~~ ||boo||", "<em>so</em> <del>not</del> <span data-mx-spoiler>boo</span>"],
        ["run `a < b`", "run <code>a &lt; b</code>"],
        ["```go\nx := \"1\"\n```", '<pre><code class="language-go">x := &quot;1&quot;</code></pre>'],
        ["- one\n- *two*", "<ul><li>one</li><li><em>two</em></li></ul>"],
        ["3. three\n4. four", '<ol start="3"><li>three</li><li>four</li></ol>'],
        ["> said\n> so\nindeed", "<blockquote>said<br>so</blockquote><p>indeed</p>"],
        ["# Title", "<h1>Title</h1>"],
        ["[here](https://example.org/x_(y))", '<a href="https://example.org/x_(y)">here</a>'],
        ["[here](javascript:alert(1))", undefined],
        ["**a <i>b</i>**", "<strong>a &lt;i&gt;b&lt;/i&gt;</strong>"],
        ["\\*not\\*", "*not*"],
        ["hello @bob!", 'hello <a href="https://matrix.to/#/%40bob%3Aexample.org">Bob &amp; Co</a>!'],
        ["mail bob@bob.example", undefined],
    ])("%s", (typed, html) => {
        expect(write(typed, (name) => (name === "bob" ? bob : undefined)).html).toBe(html);
    });

    it("names whom it mentions, and comes out as it went in at the reader", () => {
        expect(write("@bob and @carol", (name) => (name === "bob" ? bob : undefined)).mentions).toEqual([bob.userId]);
        const { html } = write("**a** `b <c>` [d](https://e.example)\n\n> f");
        expect(textOf(parseHtml(html!))).toBe("a b <c> df");
    });

    it("is done with in time, whatever it is", () => {
        for (const piece of ["*", "_a", "[", "[a](", "`", "||", "~~a", "> ", "- ", "@a", "**a"]) expect(write(piece.repeat(20_000 / piece.length)).mentions).toEqual([]);
    });
});
