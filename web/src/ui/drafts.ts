/** What was begun in each room or thread and not sent, for as long as the page lives and its person is signed in. */
export const drafts = new Map<string, string>();
