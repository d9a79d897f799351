package bench

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// plot is a drawing of figures beside what grew. The x axis is logarithmic, the y axis
// begins at 0, so that what looks flat is flat.
type plot struct {
	title, axis, unit string
	curves            []curve
	// band is the part by which a figure may differ from the first of its curve; what
	// is within is shaded.
	band float64
}

type curve struct {
	name   string
	points []point
}

type point struct{ x, y float64 }

// highest is the highest figure of a curve.
func (c *curve) highest() float64 {
	most := 0.0
	for _, p := range c.points {
		most = max(most, p.y)
	}
	return most
}

// The drawing's size and margins, in px.
const (
	plotWidth, plotHeight   = 720, 400
	plotLeft, plotRight     = 72, 24
	plotTop, plotBottom     = 48, 96
	plotLines               = 5 // of the grid, about
	plotRadius, plotLetters = 4, 13
)

// plotStyle follows the reader's light or dark.
const plotStyle = `<style>
.page{fill:#fff}text{font:13px system-ui,sans-serif;fill:#1f2328}.title{font-size:15px;font-weight:600}.small{fill:#59636e}
.grid{stroke:#d1d9e0;stroke-width:1}.line{fill:none;stroke-width:2}.band{opacity:.14}
.c0{stroke:#0969da}.f0{fill:#0969da}.c1{stroke:#bc4c00}.f1{fill:#bc4c00}.c2{stroke:#1a7f37}.f2{fill:#1a7f37}
@media (prefers-color-scheme:dark){.page{fill:#0d1117}text{fill:#e6edf3}.small{fill:#9198a1}.grid{stroke:#3d444d}
.c0{stroke:#4493f8}.f0{fill:#4493f8}.c1{stroke:#f0883e}.f1{fill:#f0883e}.c2{stroke:#3fb950}.f2{fill:#3fb950}}
</style>
`

// plotColours is how many curves can be told apart.
const plotColours = 3

// svg draws it.
func (p *plot) svg() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img" aria-label="%s">`+"\n", plotWidth, plotHeight, p.description())
	b.WriteString(plotStyle)
	fmt.Fprintf(&b, `<rect class="page" width="%d" height="%d"/>`+"\n", plotWidth, plotHeight)
	fmt.Fprintf(&b, `<text class="title" x="%d" y="26">%s</text>`+"\n", plotLeft, escaped(p.title))
	s := p.scale()
	p.grid(&b, s)
	for i, c := range p.curves {
		p.curve(&b, s, i%plotColours, &c)
	}
	for i, c := range p.curves {
		y := plotHeight - 30 + 18*i - 9*(len(p.curves)-1)
		fmt.Fprintf(&b, `<circle class="f%d" cx="%d" cy="%d" r="%d"/>`, i%plotColours, plotLeft+4, y-4, plotRadius)
		fmt.Fprintf(&b, `<text x="%d" y="%d">%s</text>`+"\n", plotLeft+16, y, escaped(c.name))
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}

// description says in words what is drawn.
func (p *plot) description() string {
	var parts []string
	for _, c := range p.curves {
		var figures []string
		for _, pt := range c.points {
			figures = append(figures, fmt.Sprintf("%s: %s %s", count(pt.x), number(pt.y), p.unit))
		}
		parts = append(parts, c.name+" ("+strings.Join(figures, ", ")+")")
	}
	return escaped(p.title + ". " + strings.Join(parts, "; "))
}

// scale places figures on the drawing.
type scale struct {
	left, right float64 // logarithms
	top, step   float64
}

func (p *plot) scale() scale {
	s := scale{left: math.Inf(1), right: math.Inf(-1)}
	most := 0.0
	for _, c := range p.curves {
		for i, pt := range c.points {
			s.left, s.right = min(s.left, math.Log10(pt.x)), max(s.right, math.Log10(pt.x))
			most = max(most, pt.y)
			if i == 0 {
				most = max(most, pt.y*(1+p.band))
			}
		}
	}
	if s.right == s.left {
		s.right++
	}
	s.step = niceStep(most / plotLines)
	s.top = s.step * math.Ceil(most*1.05/s.step)
	return s
}

// niceStep is the next of 1, 2 and 5 times a power of ten.
func niceStep(least float64) float64 {
	if least <= 0 {
		return 1
	}
	power := math.Pow(10, math.Floor(math.Log10(least)))
	for _, n := range []float64{1, 2, 5} {
		if n*power >= least {
			return n * power
		}
	}
	return 10 * power
}

func (s scale) x(v float64) float64 {
	return plotLeft + (math.Log10(v)-s.left)/(s.right-s.left)*(plotWidth-plotLeft-plotRight)
}

func (s scale) y(v float64) float64 {
	return plotHeight - plotBottom - v/s.top*(plotHeight-plotTop-plotBottom)
}

func (p *plot) grid(b *bytes.Buffer, s scale) {
	for i := 0; float64(i)*s.step <= s.top*1.0001; i++ {
		v := float64(i) * s.step
		fmt.Fprintf(b, `<line class="grid" x1="%d" y1="%.1f" x2="%d" y2="%.1f"/>`, plotLeft, s.y(v), plotWidth-plotRight, s.y(v))
		fmt.Fprintf(b, `<text class="small" text-anchor="end" x="%d" y="%.1f">%s</text>`+"\n", plotLeft-8, s.y(v)+4, strconv.FormatFloat(v, 'g', 6, 64))
	}
	fmt.Fprintf(b, `<text class="small" text-anchor="end" x="%d" y="%d">%s</text>`+"\n", plotLeft-8, plotTop-10, escaped(p.unit))
	drawn := map[float64]bool{}
	for _, c := range p.curves {
		for _, pt := range c.points {
			if !drawn[pt.x] {
				drawn[pt.x] = true
				fmt.Fprintf(b, `<text class="small" text-anchor="middle" x="%.1f" y="%d">%s</text>`+"\n", s.x(pt.x), plotHeight-plotBottom+18, count(pt.x))
			}
		}
	}
	fmt.Fprintf(b, `<text class="small" text-anchor="end" x="%d" y="%d">%s</text>`+"\n", plotWidth-plotRight, plotHeight-plotBottom+38, escaped(p.axis))
}

func (p *plot) curve(b *bytes.Buffer, s scale, colour int, c *curve) {
	if len(c.points) == 0 {
		return
	}
	first := c.points[0].y
	high, low := s.y(first*(1+p.band)), s.y(first*(1-p.band))
	fmt.Fprintf(b, `<rect class="band f%d" x="%d" y="%.1f" width="%d" height="%.1f"/>`+"\n", colour, plotLeft, high, plotWidth-plotLeft-plotRight, low-high)
	var line []string
	for _, pt := range c.points {
		line = append(line, fmt.Sprintf("%.1f,%.1f", s.x(pt.x), s.y(pt.y)))
	}
	fmt.Fprintf(b, `<polyline class="line c%d" points="%s"/>`+"\n", colour, strings.Join(line, " "))
	for _, pt := range c.points {
		fmt.Fprintf(b, `<circle class="f%d" cx="%.1f" cy="%.1f" r="%d"/>`, colour, s.x(pt.x), s.y(pt.y), plotRadius)
		fmt.Fprintf(b, `<text text-anchor="middle" x="%.1f" y="%.1f">%s</text>`+"\n", min(max(s.x(pt.x), plotLeft+2*plotLetters), plotWidth-plotRight-2*plotLetters), s.y(pt.y)-10, number(pt.y))
	}
}

// count is a number with commas between the thousands.
func count(v float64) string {
	digits := strconv.FormatFloat(v, 'f', 0, 64)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

func escaped(text string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;").Replace(text)
}
