/** Text with markup, made of elements, never of markup itself. */
import { Fragment, h, type JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { highlight, type Piece } from "../domain/highlight.ts";
import type { Rich, RichElement } from "../domain/html.ts";
import { t } from "../domain/i18n.ts";
import { splitLinks } from "../domain/links.ts";

export function Text({ text }: { text: string }): JSX.Element {
    return (
        <>
            {splitLinks(text).map(({ text: part, href }) =>
                href === undefined ? (
                    part
                ) : (
                    <a href={href} target="_blank" rel="noopener noreferrer">
                        {part}
                    </a>
                ),
            )}
        </>
    );
}

export function RichText({ nodes, plain = false }: { nodes: readonly Rich[]; plain?: boolean }): JSX.Element {
    return (
        <>
            {nodes.map((node, i) => {
                if (typeof node === "string") return plain ? node : <Text key={i} text={node} />;
                return <Node key={i} node={node} plain={plain} />;
            })}
        </>
    );
}

function Node({ node, plain }: { node: RichElement; plain: boolean }): JSX.Element {
    const inside = (within = plain): JSX.Element => <RichText nodes={node.children} plain={within} />;
    if (node.tag === "a") {
        if (node.person !== undefined) {
            return (
                <span class="pill" title={node.person}>
                    @{inside(true)}
                </span>
            );
        }
        if (node.href === undefined) return inside();
        return (
            <a href={node.href} target="_blank" rel="noopener noreferrer" title={node.href}>
                {inside(true)}
            </a>
        );
    }
    if (node.tag === "span") {
        if (node.spoiler !== undefined) return <Spoiler reason={node.spoiler}>{inside()}</Spoiler>;
        if (node.colour === undefined && node.background === undefined) return inside();
        return <span ref={(element) => paint(element, node)}>{inside()}</span>;
    }
    if (node.tag === "hr" || node.tag === "br") return h(node.tag, {});
    if (node.tag === "pre") {
        const [code] = node.children;
        if (typeof code === "object" && code.tag === "code" && code.language !== undefined) return <Code code={textOf(code)} language={code.language} />;
    }
    if (node.tag === "table") return <div class="table-frame">{h("table", {}, inside())}</div>;
    // A message is no chapter of the page: its headings are strong lines.
    if (/^h[1-6]$/.test(node.tag)) return <p class={`rich-${node.tag}`}>{inside()}</p>;
    if (node.tag === "ol") return <ol {...(node.start === undefined ? {} : { start: node.start })}>{inside()}</ol>;
    return h(node.tag, {}, inside(plain || node.tag === "code"));
}

const textOf = (node: Rich): string => (typeof node === "string" ? node : node.tag === "br" ? "\n" : node.children.map(textOf).join(""));

/** A block of code, plain until its colours are known. */
function Code({ code, language }: { code: string; language: string }): JSX.Element {
    const [pieces, setPieces] = useState<Piece[]>([code]);
    useEffect(() => {
        setPieces([code]);
        let gone = false;
        void highlight(code, language).then((found) => gone || setPieces(found));
        return () => void (gone = true);
    }, [code, language]);
    return (
        <pre tabIndex={0} aria-label={t("Code in {language}", { language })} role="region">
            <code>{pieces.map(drawPiece)}</code>
        </pre>
    );
}

function drawPiece(piece: Piece, at: number): JSX.Element | string {
    if (typeof piece === "string") return piece;
    return (
        <span key={at} class={`code-${piece.kind}`}>
            {piece.children.map(drawPiece)}
        </span>
    );
}

/** The policy forbids styles in markup; through the DOM they may be set, and these are checked colours. */
function paint(element: HTMLElement | null, node: RichElement): void {
    if (!element) return;
    if (node.colour !== undefined) element.style.color = node.colour;
    if (node.background !== undefined) element.style.backgroundColor = node.background;
}

function Spoiler({ reason, children }: { reason: string; children: JSX.Element }): JSX.Element {
    const [shown, setShown] = useState(false);
    if (shown) return <Fragment>{children}</Fragment>;
    return (
        <button type="button" class="spoiler" onClick={() => setShown(true)}>
            {reason === "" ? t("Show what is hidden") : reason}
        </button>
    );
}
