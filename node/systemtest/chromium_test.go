//go:build system

package systemtest

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// faults is a function of the page: what is wrong with it for those who see
// badly, use a keyboard or a screen reader.
//
//go:embed testdata/faults.js
var faults string

// chromium is a real browser with an empty profile.
type chromium struct {
	t    *testing.T
	ctx  context.Context
	dir  string // of the pictures; empty: nobody wants any
	tabs []*tab
}

// tab is one page of it, all of whose requests and messages are kept.
type tab struct {
	t       *testing.T
	dir     string
	name    string
	ctx     context.Context
	cancel  context.CancelFunc
	origins []string // where it may ask
	console bool     // whether messages are faults

	mu       sync.Mutex // guards all below
	requests []string
	messages []string
}

func startChromium(t *testing.T) *chromium {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("needs chromium")
	}
	ctx, cancel := chromedp.NewExecAllocator(t.Context(), append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.UserDataDir(t.TempDir()),
		chromedp.Flag("disable-gpu", true), chromedp.Flag("disable-component-update", true), chromedp.Flag("no-proxy-server", true),
		chromedp.Flag("hide-scrollbars", true), chromedp.WSURLReadTimeout(patience),
	)...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatal(err)
	}
	dir := os.Getenv("PKTCLOUD_SCREENSHOTS")
	if dir != "" {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return &chromium{t: t, ctx: ctx, dir: dir}
}

// open opens a tab that may ask one origin.
func (c *chromium) open(name, origin string, options ...chromedp.ContextOption) *tab {
	c.t.Helper()
	b := &tab{t: c.t, dir: c.dir, name: name, origins: []string{origin}, console: true}
	b.ctx, b.cancel = chromedp.NewContext(c.ctx, append(options, chromedp.WithListener(b.listen))...)
	c.t.Cleanup(b.cancel)
	c.tabs = append(c.tabs, b)
	if err := chromedp.Do(b.ctx, call(network.Enable, network.EnableParams{}), call(log.Enable, cdp.Empty{})); err != nil {
		c.t.Fatalf("open %s: %v", name, err)
	}
	return b
}

func call[P, R any](c cdp.Command[P, R], p P) chromedp.Action[chromedp.Void] {
	return func(ctx context.Context, t *chromedp.Target) (chromedp.Void, error) {
		_, err := cdp.Call(ctx, t, c, p)
		return chromedp.Void{}, err
	}
}

func (b *tab) close() { b.cancel() }

func (b *tab) listen(ev any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch ev := ev.(type) {
	case *network.EventRequestWillBeSent:
		b.requests = append(b.requests, ev.Request.URL)
	case *network.EventWebSocketCreated:
		b.requests = append(b.requests, ev.URL)
	case *runtime.EventExceptionThrown:
		b.messages = append(b.messages, fmt.Sprintf("exception: %s", ev.ExceptionDetails.Text))
	case *runtime.EventConsoleAPICalled:
		if ev.Type == "error" || ev.Type == "warning" || ev.Type == "assert" {
			text := ""
			for _, a := range ev.Args {
				text += fmt.Sprintf(" %s%s", a.Value, a.Description)
			}
			b.messages = append(b.messages, fmt.Sprintf("console %s:%s", ev.Type, text))
		}
	case *log.EventEntryAdded:
		// A page that answers with a refusal is logged as a failure to load.
		refusal := ev.Entry.Source == "network" && strings.Contains(ev.Entry.Text, "responded with a status of 4")
		if !refusal && !strings.Contains(ev.Entry.Text, "status of 502") && (ev.Entry.Level == "error" || ev.Entry.Level == "warning") {
			b.messages = append(b.messages, fmt.Sprintf("log %s: %s %s", ev.Entry.Source, ev.Entry.Text, ev.Entry.URL))
		}
	}
}

// quiet fails the test over a message in a console, or a request that went
// elsewhere.
func (c *chromium) quiet() {
	for _, b := range c.tabs {
		b.mu.Lock()
		if len(b.requests) == 0 && b.name != "service" {
			c.t.Errorf("%s: no request was seen at all", b.name)
		}
		for _, r := range b.requests {
			u, err := url.Parse(r)
			if r != "about:blank" && r != "data:," && (err != nil || !slices.Contains(b.origins, u.Scheme+"://"+u.Host)) {
				c.t.Errorf("%s: a request to %s", b.name, r)
			}
		}
		for _, m := range b.messages {
			if b.console {
				c.t.Errorf("%s: %s", b.name, m)
			}
		}
		b.mu.Unlock()
	}
}

// run does something in the page, for as long as there is patience.
func run[T any](b *tab, a chromedp.Action[T]) (T, error) {
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	return chromedp.Run(ctx, a)
}

func (b *tab) do(what string, steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if _, err := run(b, chromedp.Steps(steps...)); err != nil {
		b.fatal(what, err)
	}
}

func (b *tab) fatal(what string, err error) {
	b.t.Helper()
	b.picture("failure")
	text, lost := run(b, chromedp.Evaluate[string]("location.href + '\\n' + document.body.innerText"))
	b.t.Fatalf("%s: %s: %v; the page is %s (%v)", b.name, what, err, text, lost)
}

// open goes to an address and returns the answer's status.
func (b *tab) open(address string) int {
	b.t.Helper()
	r, err := run(b, chromedp.NavigateResponse(address))
	if err != nil || r == nil {
		b.fatal("open "+address, err)
	}
	return int(r.Status)
}

func eval[T any](b *tab, expression string) T {
	b.t.Helper()
	v, err := run(b, chromedp.Evaluate[T](expression))
	if err != nil {
		b.fatal(expression, err)
	}
	return v
}

// wait waits until an expression is true in the page.
func (b *tab) wait(what, expression string) {
	b.t.Helper()
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		var ok bool
		if ok, err = run(b, chromedp.Evaluate[bool]("Boolean("+expression+")")); ok {
			return
		}
		if b.ctx.Err() != nil {
			break
		}
	}
	b.fatal(what, fmt.Errorf("it does not happen (last error: %v)", err))
}

// shows waits until an element has a text.
func (b *tab) shows(selector, text string) {
	b.t.Helper()
	b.wait(fmt.Sprintf("%s shows %q", selector, text),
		fmt.Sprintf(`[...document.querySelectorAll(%q)].some(e => e.innerText.includes(%q))`, selector, text))
}

func (b *tab) at(address string) {
	b.t.Helper()
	b.wait("the address is "+address, fmt.Sprintf("location.href === %q && document.readyState === 'complete'", address))
}

func (b *tab) has(selector string) bool {
	b.t.Helper()
	return eval[bool](b, fmt.Sprintf("document.querySelector(%q) !== null", selector))
}

func (b *tab) text(selector string) string {
	b.t.Helper()
	return eval[string](b, fmt.Sprintf("document.querySelector(%q)?.innerText ?? ''", selector))
}

func (b *tab) value(selector string) string {
	b.t.Helper()
	return eval[string](b, fmt.Sprintf("document.querySelector(%q)?.value ?? 'no such field'", selector))
}

// units is an amount as the page knows it exactly.
func (b *tab) units(selector string) uint64 {
	b.t.Helper()
	return eval[uint64](b, fmt.Sprintf("Number(document.querySelector(%q)?.value ?? 0)", selector))
}

// mark leaves a mark that a reload of the page would wipe out.
func (b *tab) mark() { eval[int](b, "window.marked = 1") }

func (b *tab) marked(what string) {
	b.t.Helper()
	if eval[int](b, "window.marked ?? 0") != 1 {
		b.t.Errorf("%s: the page was loaded again", what)
	}
}

// click clicks on an element, and as a person would once more when the page moved
// under the mouse at that moment. An element that was replaced by its like just
// before is hit all the same: a second click would undo the first.
func (b *tab) click(selector string) {
	b.t.Helper()
	const arm = `(() => { sessionStorage.removeItem("clicked"); window.armed?.abort(); window.armed = new AbortController()
		document.addEventListener("click", e => { if (e.target.closest(%q)) sessionStorage.setItem("clicked", "yes") },
			{capture: true, signal: window.armed.signal}); return location.href })()`
	for range 5 {
		b.do("find "+selector, chromedp.WaitVisible(chromedp.CSS(selector)))
		page := eval[string](b, fmt.Sprintf(arm, selector))
		b.do("click "+selector, chromedp.Click(chromedp.CSS(selector), chromedp.NodeVisible))
		for end := time.Now().Add(2 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			hit, err := run(b, chromedp.Evaluate[bool](fmt.Sprintf(`location.href !== %q || sessionStorage.getItem("clicked") === "yes"`, page)))
			if hit || err != nil { // an error: the page is on its way to another
				return
			}
		}
	}
	b.fatal("click "+selector, errors.New("the mouse does not hit it"))
}

// submit presses a form's button and waits for the page that answers.
func (b *tab) submit(button string) {
	b.t.Helper()
	b.mark()
	b.click(button)
	b.wait("the form is answered", "window.marked === undefined && document.readyState === 'complete'")
}

func (b *tab) press(key string) {
	b.t.Helper()
	keys := map[string]string{"Enter": kb.Enter, "Delete": kb.Delete}
	b.do("press "+key, chromedp.KeyEvent(keys[key]))
}

// fill types over what a field has.
func (b *tab) fill(selector, text string) {
	b.t.Helper()
	b.do("focus "+selector, chromedp.WaitVisible(chromedp.CSS(selector)))
	eval[bool](b, fmt.Sprintf("(e => { e.focus(); e.select(); return true })(document.querySelector(%q))", selector))
	if text == "" {
		b.press("Delete")
	} else {
		b.do("type into "+selector, chromedp.KeyEvent(text))
	}
	if got := b.value(selector); got != text {
		b.t.Fatalf("%s: typed %q into %s, it has %q", b.name, text, selector, got)
	}
}

// look examines the page in two widths and both colour schemes.
func (b *tab) look(name string) {
	b.t.Helper()
	defer b.dress(1440, "light")
	for _, width := range []int64{1440, 360} {
		for _, scheme := range []string{"light", "dark"} {
			b.dress(width, scheme)
			found := eval[[]string](b, faults)
			for try := 0; try < 2 && len(found) > 0; try++ { // the page may just have changed: what is wrong stays so
				b.dress(width+200, scheme)
				b.dress(width, scheme)
				found = eval[[]string](b, faults)
			}
			for _, f := range found {
				b.t.Errorf("%s at %d px, %s: %s", name, width, scheme, f)
			}
			b.picture(fmt.Sprintf("%s-%d-%s", name, width, scheme))
		}
	}
}

func (b *tab) dress(width int64, scheme string) {
	b.t.Helper()
	b.do("set the width", call(emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: width, Height: 900, DeviceScaleFactor: 1}),
		call(emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
			{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"},
		}}))
	b.wait("the width is set", fmt.Sprintf("window.innerWidth === %d && matchMedia('(prefers-color-scheme: %s)').matches", width, scheme))
}

func (b *tab) picture(name string) {
	if b.dir == "" {
		return
	}
	png, err := run(b, chromedp.FullScreenshot(100))
	if err == nil {
		err = os.WriteFile(filepath.Join(b.dir, name+".png"), png, 0o644)
	}
	if err != nil {
		b.t.Logf("no picture of %s: %v", name, err)
	}
}
