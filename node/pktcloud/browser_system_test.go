//go:build system

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"github.com/pkt-cash/pkt-cloud/node"
)

// newDemo starts chain, provider and tenant, funded, with an offer found.
func newDemo(t *testing.T) *demo {
	t.Helper()
	if r := node.Examine(); !r.Provider {
		t.Skip("root, cgroups and namespaces are needed: " + whatIsMissing(r))
	}
	t.Setenv(asCommand, "1")
	var out bytes.Buffer
	d := &demo{
		app: &app{in: strings.NewReader(""), out: &out, err: os.Stderr}, dir: t.TempDir(), start: time.Now(), last: time.Now(),
		o: demoOptions{intervals: 3, port: demoPort, blocks: 2 * time.Second}, family: newFamily(),
	}
	t.Cleanup(func() {
		stopped := d.stopAll()
		if err := d.cleanup(context.Background()); err != nil || stopped != nil {
			t.Error(stopped, err)
		}
		if t.Failed() {
			t.Log(out.String())
		}
	})
	for _, step := range []func(context.Context) (string, error){d.makeImage, d.startChain, d.startProvider, d.startTenant, d.prePull, d.fund, d.publish, d.find} {
		text, err := step(t.Context())
		if err != nil {
			d.family.dump(os.Stderr)
			t.Fatal(err)
		}
		t.Log(text)
	}
	return d
}

// TestBrowser does the whole story in Chromium: from the market to a running
// page through the tunnel, exposure moving, close, wallet. With PKTCLOUD_SHOTS
// it leaves pictures in that directory.
func TestBrowser(t *testing.T) {
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("chromium is needed")
	}
	d := newDemo(t)
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.WindowSize(1200, 900))
	ctx, cancel := chromedp.NewExecAllocator(t.Context(), options...)
	defer cancel()
	ctx, cancel = chromedp.NewContext(ctx)
	defer cancel()
	ctx, cancel = context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	b := &browser{t: t, ctx: ctx}
	if err := chromedp.Do(ctx); err != nil { // the browser lives as long as this context
		t.Fatal(err)
	}
	b.listen()

	b.do("log in", chromedp.Navigate(d.login), chromedp.WaitVisible(`#offers table`))
	b.shots("market")
	b.do("filter", chromedp.SendKeys("#region", "SE\n"), chromedp.WaitVisible(".empty"),
		chromedp.SetValue("#region", "de"), chromedp.SendKeys("#region", "\n"), chromedp.WaitVisible("#offers table"))
	b.do("rent", chromedp.Click("#offers a.button"), chromedp.WaitVisible("#image"))
	b.shots("deploy")

	// A mistake first: nothing typed is lost.
	for field, value := range map[string]string{"image": d.o.image, "port": "8080", "cores": "0.5", "memory": "128", "disk": "64", "interval": "1", "credit": "2", "prepaid": "1"} {
		b.do("fill "+field, chromedp.SetValue("#"+field, value))
	}
	b.do("ask for too much disk", chromedp.Click("button[form=deploy]"), chromedp.WaitVisible("[role=alert]"))
	alert, image := b.text("[role=alert]"), look(b, "read the image", chromedp.Value("#image"))
	if image != d.o.image || alert == "" {
		t.Errorf("after a refusal the image is %q and the reason %q", image, alert)
	}
	b.shots("refusal")
	b.do("deploy", chromedp.SetValue("#disk", "1"), chromedp.SendKeys("#term", "\b1"), chromedp.WaitVisible("#price .figure"),
		chromedp.Click("button[form=deploy]"), chromedp.WaitVisible(".badge.good"))

	endpoint := look(b, "find the endpoint", chromedp.Evaluate[string](`document.querySelector("a.button[target=_blank]").href`))
	first := b.paid()
	b.until("the paid sum moves", func() bool { return b.paid() != first })
	b.until("the log is shown", func() bool { return strings.Contains(b.text(".tail"), "response:200") })
	b.shots("lease")

	tab, cancel := chromedp.NewContext(ctx)
	defer cancel()
	if err := chromedp.Do(tab); err != nil {
		t.Fatal(err)
	}
	other := &browser{t: t, ctx: tab}
	other.do("open the service", chromedp.Navigate(endpoint), chromedp.WaitVisible("h1"))
	if title := other.text("h1"); title != "Hello from a lease" {
		t.Errorf("at %s: title %q", endpoint, title)
	}

	b.do("close", chromedp.Click("details.confirm summary"), chromedp.Click("details.confirm button.danger"), chromedp.WaitVisible(`//*[contains(@class,"badge") and text()="closed"]`))
	b.shots("closed")
	b.do("wallet", chromedp.Click(`nav a[href="/wallet"]`), chromedp.WaitVisible("#history"), chromedp.Click(`form[action="/wallet/address"] button`), chromedp.WaitVisible("img.qr"))
	b.until("the rest comes back", func() bool {
		b.do("reload", chromedp.Reload(), chromedp.WaitVisible("#history"))
		return strings.Contains(b.text("main"), "came back from a lease")
	})
	b.shots("wallet")
	b.do("log out", chromedp.Click("form[action='/logout'] button"), chromedp.WaitVisible("pre.command"))
	b.shots("login")
}

type browser struct {
	t   *testing.T
	ctx context.Context
}

// listen makes what the browser reports a failure: a policy that was broken, a
// script that threw.
func (b *browser) listen() {
	thrown, entries := chromedp.Events(b.ctx, runtime.ExceptionThrown), chromedp.Events(b.ctx, log.EntryAdded)
	go func() {
		for ev, err := range thrown {
			if err == nil {
				b.t.Errorf("a script threw: %+v", ev.ExceptionDetails)
			}
		}
	}()
	go func() {
		for ev, err := range entries {
			if err == nil && strings.Contains(ev.Entry.Text, "Content Security Policy") {
				b.t.Errorf("the page breaks its policy: %s", ev.Entry.Text)
			}
		}
	}()
}

func (b *browser) do(what string, actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	look(b, what, chromedp.Steps(actions...))
}

// look does one thing and returns what it gives.
func look[T any](b *browser, what string, action chromedp.Action[T]) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, 20*time.Second)
	defer cancel()
	v, err := chromedp.Run(ctx, action)
	if err != nil {
		page, _ := chromedp.Run(b.ctx, chromedp.Evaluate[string]("location.href + document.body.innerText"))
		b.t.Fatalf("%s: %v; the page says:\n%s", what, err, page)
	}
	return v
}

func (b *browser) text(selector string) string {
	b.t.Helper()
	return look(b, "read "+selector, chromedp.Evaluate[string](fmt.Sprintf("(document.querySelector(%q) || {innerText: ''}).innerText", selector)))
}

func (b *browser) paid() string { return b.text("#paid") }

func (b *browser) until(what string, ok func() bool) {
	b.t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); {
		if time.Now().After(end) {
			b.t.Fatalf("%s: it did not", what)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// shots takes a picture at phone and desktop width, light and dark, and checks
// that nothing sticks out sideways.
func (b *browser) shots(name string) {
	b.t.Helper()
	for _, width := range []int64{360, 1200} {
		b.do("resize", chromedp.EmulateViewport(width, 900))
		over := look(b, "measure", chromedp.Evaluate[int]("document.documentElement.scrollWidth - document.documentElement.clientWidth"))
		if over > 0 {
			b.t.Errorf("%s at %d pixels is %d too wide", name, width, over)
		}
		dir := os.Getenv("PKTCLOUD_SHOTS")
		if dir == "" {
			continue
		}
		png := look(b, "picture", chromedp.FullScreenshot(100))
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%s-%d.png", name, width)), png, 0o600); err != nil {
			b.t.Fatal(err)
		}
	}
}
